#include "tests/converter/gguf_maker.h"

#include <algorithm>
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "services/core/base/units.h"
#include "services/core/formats/gguf_model.h"

namespace odmoe {
namespace {

constexpr int64_t kDim = 256, kFfn = 256 * 2, kVocabulary = 5;

class HeaderMaker {
 public:
  explicit HeaderMaker(const GgufMakerOptions& options) : options_(options) {}

  GgufHeader Make() {
    AddKeys();
    Add("token_embd.weight", DType::kF16, {kDim, kVocabulary});
    for (int32_t layer = 0; layer < options_.dense_layers + options_.moe_layers; ++layer) {
      const std::string prefix = absl::StrCat("blk.", layer, ".");
      Add(prefix + "attn_norm.weight", DType::kF32, {kDim});
      Add(prefix + "attn_q.weight", DType::kQ4_K, {kDim, 3});
      if (layer < options_.dense_layers) {
        Add(prefix + "ffn_gate.weight", DType::kBF16, {kDim, 7});
      } else {
        Add(prefix + "ffn_gate_inp.weight", DType::kF32, {kDim, options_.experts});
        AddExperts(prefix);
      }
    }
    Add("output_norm.weight", DType::kF32, {kDim});
    if (!options_.tied) Add("output.weight", DType::kI8, {kDim, 1});
    header_.version = options_.version;
    return std::move(header_);
  }

 private:
  void AddKeys() {
    GgufMetadata& keys = header_.metadata;
    keys.Set("general.architecture", GgufValue::String("qwen3moe"));
    if (options_.alignment != 0) keys.Set(kGgufAlignmentKey, GgufValue::U32(options_.alignment));
    keys.Set("qwen3moe.expert_count", GgufValue::U32(static_cast<uint32_t>(options_.experts)));
    keys.Set("tokenizer.ggml.tokens", GgufValue::Strings({"a", "\xff\x01", "", "\"", "e"}));
    keys.Set("odd", GgufValue::F32s({0.1, 1e300, -0.0}));
  }

  void Add(std::string name, DType dtype, std::vector<int64_t> ne) {
    header_.tensors.push_back({.name = std::move(name), .dtype = dtype, .ne = std::move(ne)});
  }

  void AddExperts(const std::string& prefix) {
    const int64_t n = options_.experts;
    switch (options_.form) {
      case ExpertForm::kStacked:
        Add(prefix + "ffn_gate_exps.weight", options_.w1, {kDim, kFfn, n});
        Add(prefix + "ffn_down_exps.weight", options_.w2, {kFfn, kDim, n});
        Add(prefix + "ffn_up_exps.weight", options_.w1, {kDim, kFfn, n});
        break;
      case ExpertForm::kFused:
        Add(prefix + "ffn_down_exps.weight", options_.w2, {kFfn, kDim, n});
        Add(prefix + "ffn_gate_up_exps.weight", options_.w1, {kDim, 2 * kFfn, n});
        break;
      case ExpertForm::kSingle:
        for (int64_t e = 0; e < n; ++e) {
          Add(absl::StrCat(prefix, "ffn_gate.", e, ".weight"), options_.w1, {kDim, kFfn});
          Add(absl::StrCat(prefix, "ffn_down.", e, ".weight"), options_.w2, {kFfn, kDim});
          Add(absl::StrCat(prefix, "ffn_up.", e, ".weight"), options_.w1, {kDim, kFfn});
        }
        break;
    }
    if (options_.biases) AddBiases(prefix);
  }

  void AddBiases(const std::string& prefix) {
    const int64_t n = options_.experts;
    switch (options_.form) {
      case ExpertForm::kStacked:
        Add(prefix + "ffn_gate_exps.bias", DType::kF32, {kFfn, n});
        Add(prefix + "ffn_down_exps.bias", DType::kBF16, {kDim, n});
        break;
      case ExpertForm::kFused:
        Add(prefix + "ffn_gate_up_exps.bias", DType::kF32, {2 * kFfn, n});
        Add(prefix + "ffn_down_exps.bias", DType::kF32, {kDim, n});
        break;
      case ExpertForm::kSingle:
        for (int64_t e = 0; e < n; ++e) {
          Add(absl::StrCat(prefix, "ffn_up.", e, ".bias"), DType::kF32, {kFfn});
        }
        break;
    }
  }

  const GgufMakerOptions& options_;
  GgufHeader header_;
};

}  // namespace

std::string EncodeGguf(GgufHeader header, const GgufMakerOptions& options) {
  EXPECT_EQ(LayOutGgufTensors(header), absl::OkStatus());
  std::string bytes = EncodeGgufHeader(header).value();
  const size_t data_offset = bytes.size();
  const uint32_t alignment =
      header.metadata.GetU32Or(kGgufAlignmentKey, kDefaultGgufAlignment).value();
  std::mt19937 random(options.seed);
  const auto fill = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; i += 4) {
      const uint32_t word = random();
      std::memcpy(&bytes[i], &word, std::min<size_t>(4, end - i));
    }
  };
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    const GgufTensor& tensor = header.tensors[i];
    const size_t begin = data_offset + tensor.offset, end = begin + tensor.bytes;
    const bool last = i + 1 == header.tensors.size();
    bytes.resize(last && options.tail == 0 ? end : RoundUp(end, alignment));
    fill(begin, options.dirty_padding ? bytes.size() : end);
  }
  if (options.tail == 2) bytes += std::string(77, options.dirty_padding ? 'x' : '\0');
  return bytes;
}

std::string MakeGguf(const GgufMakerOptions& options) {
  return EncodeGguf(HeaderMaker(options).Make(), options);
}

std::vector<std::string> MakeGgufShards(const GgufMakerOptions& options, int shards,
                                        bool empty_first) {
  GgufHeader whole = HeaderMaker(options).Make();
  EXPECT_EQ(LayOutGgufTensors(whole), absl::OkStatus());
  // Shards with the very bytes of the whole.
  const std::string bytes = EncodeGguf(whole, options);
  const size_t data_offset = EncodeGgufHeader(whole).value().size();
  const size_t holders = static_cast<size_t>(empty_first ? shards - 1 : shards);
  const size_t share = (whole.tensors.size() + holders - 1) / holders;
  std::vector<std::string> files;
  size_t next = 0;
  for (int shard = 0; shard < shards; ++shard) {
    GgufHeader header{.version = options.version};
    if (shard == 0) header.metadata = whole.metadata;
    GgufValue number = GgufValue::U32(static_cast<uint32_t>(shard));
    GgufValue count = GgufValue::U32(static_cast<uint32_t>(shards));
    number.type = count.type = GgufType::kU16;
    header.metadata.Set(kGgufSplitNumberKey, number);
    header.metadata.Set(kGgufSplitCountKey, count);
    header.metadata.Set(kGgufSplitTensorsKey,
                        GgufValue::I32(static_cast<int32_t>(whole.tensors.size())));
    const size_t first = next;
    if (shard > 0 || !empty_first) next = std::min(next + share, whole.tensors.size());
    header.tensors.assign(whole.tensors.begin() + static_cast<long>(first),
                          whole.tensors.begin() + static_cast<long>(next));
    EXPECT_EQ(LayOutGgufTensors(header), absl::OkStatus());
    std::string file = EncodeGgufHeader(header).value();
    for (size_t i = first; i < next; ++i) {
      file += bytes.substr(data_offset + whole.tensors[i].offset, whole.tensors[i].bytes);
      file.resize(RoundUp(file.size(), kDefaultGgufAlignment));
    }
    files.push_back(std::move(file));
  }
  return files;
}

}  // namespace odmoe
