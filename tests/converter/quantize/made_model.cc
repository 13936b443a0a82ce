#include "tests/converter/quantize/made_model.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

enum class Attention { kSeparate, kFused, kLatent };

struct Kind {
  const char* name;
  const char* architecture;
  int64_t layers;
  int64_t experts;
  uint32_t heads, key_heads;
  Attention attention;
  DType dtype;
  bool tied = false;
  bool shared = false;  // a shared expert
  int64_t down_columns = 256;
};

constexpr Kind kKinds[] = {
    {"dense", "llama", 16, 0, 8, 2, Attention::kSeparate, DType::kBF16},
    {"dense_tied", "qwen2", 24, 0, 4, 4, Attention::kSeparate, DType::kF16, true, false, 160},
    {"dense_80", "llama", 80, 0, 8, 1, Attention::kSeparate, DType::kF32},
    {"eight_experts", "llama", 16, 8, 8, 2, Attention::kSeparate, DType::kBF16},
    {"latent", "deepseek2", 17, 12, 4, 1, Attention::kLatent, DType::kBF16, false, true, 72},
    {"shared", "qwen2moe", 8, 5, 4, 4, Attention::kSeparate, DType::kF16, false, true},
    {"many_experts", "olmoe", 16, 6, 4, 4, Attention::kSeparate, DType::kF32, true},
    {"falcon", "falcon", 32, 0, 8, 1, Attention::kFused, DType::kBF16},
    {"fused", "gpt2", 12, 0, 4, 4, Attention::kFused, DType::kF16, true},
    {"quantized", "llama", 8, 0, 4, 4, Attention::kSeparate, DType::kQ8_0},
};

const Kind& FindKind(const std::string& name) {
  for (const Kind& kind : kKinds) {
    if (kind.name == name) return kind;
  }
  std::abort();
}

// Marsaglia's xorshift64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }
  // About normal, of deviation 0.6: the sum of four even ones.
  float Weight() {
    const uint64_t bits = Next();
    int64_t sum = -2 * 65535;
    for (int shift = 0; shift < 64; shift += 16)
      sum += static_cast<int64_t>(bits >> shift & 0xffff);
    return static_cast<float>(sum) / 65536.0f;
  }

 private:
  uint64_t state_;
};

class ModelMaker {
 public:
  explicit ModelMaker(const Kind& kind) : kind_(kind) {
    AddKeys();
    Add("token_embd.weight", {256, 5});
    if (kind.attention == Attention::kFused) Add("position_embd.weight", {256, 5});
    // Not in their order: it is the quantizer's work to sort them.
    for (int64_t layer = kind.layers - 1; layer >= 0; --layer)
      AddLayer(absl::StrCat("blk.", layer, "."));
    Add("output_norm.weight", {256});
    if (!kind.tied) Add("output.weight", {256, 5});
  }

  const GgufHeader& header() const { return header_; }

 private:
  void AddKeys() {
    const std::string prefix = absl::StrCat(kind_.architecture, ".");
    const auto set = [&](const char* key, uint32_t value) {
      header_.metadata.Set(prefix + key, GgufValue::U32(value));
    };
    header_.metadata.Set("general.architecture", GgufValue::String(kind_.architecture));
    header_.metadata.Set("general.file_type", GgufValue::U32(1));
    set("context_length", 64);
    set("embedding_length", 256);
    set("block_count", static_cast<uint32_t>(kind_.layers));
    set("feed_forward_length", 256);
    set("attention.head_count", kind_.heads);
    set("attention.head_count_kv", kind_.key_heads);
    for (const char* key : {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"}) {
      header_.metadata.Set(prefix + key, GgufValue::F32(1e-5f));
    }
    if (kind_.experts > 0) {
      set("expert_count", static_cast<uint32_t>(kind_.experts));
      set("expert_used_count", 2);
      set("expert_feed_forward_length", 256);
      set("expert_shared_count", 1);
    }
    if (kind_.attention == Attention::kLatent) {
      set("attention.q_lora_rank", 256);
      set("attention.kv_lora_rank", 256);
    }
    header_.metadata.Set("tokenizer.ggml.model", GgufValue::String("gpt2"));
    header_.metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings({"a", "b", "c", "d", "e"}));
  }

  void Add(std::string name, std::vector<int64_t> ne) {
    const bool plain = ne.size() < 2 || absl::StrContains(name, "ffn_gate_inp");
    const bool whole = ne[0] % Info(kind_.dtype).block_elements == 0;
    const DType dtype = plain ? DType::kF32 : whole ? kind_.dtype : DType::kF16;
    header_.tensors.push_back({.name = std::move(name), .dtype = dtype, .ne = std::move(ne)});
  }

  void AddLayer(const std::string& prefix) {
    AddFeedForward(prefix);
    Add(prefix + "attn_norm.weight", {256});
    if (kind_.attention == Attention::kSeparate) {
      for (const char* name : {"attn_q", "attn_k", "attn_v"})
        Add(prefix + name + ".weight", {256, 2});
      Add(prefix + "attn_q.bias", {2});
    } else if (kind_.attention == Attention::kFused) {
      Add(prefix + "attn_qkv.weight", {256, 3});
    } else {
      for (const char* name : {"attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_kv_b"}) {
        Add(prefix + name + ".weight", {256, 2});
      }
      Add(prefix + "attn_k_b.weight", {128, 2, 2});
      Add(prefix + "attn_v_b.weight", {256, 1, 3});
    }
    Add(prefix + "attn_output.weight", {256, 2});
  }

  void AddFeedForward(const std::string& prefix) {
    // The first layer of models with latent attention is dense.
    const bool dense =
        kind_.experts == 0 || (kind_.attention == Attention::kLatent && prefix == "blk.0.");
    const std::string suffix = dense ? ".weight" : "_exps.weight";
    for (const char* name : {"ffn_gate", "ffn_up", "ffn_down"}) {
      std::vector<int64_t> ne = {256, 2};
      if (absl::StrContains(name, "down")) ne[0] = kind_.down_columns;
      if (kind_.shared && !dense) Add(absl::StrCat(prefix, name, "_shexp.weight"), ne);
      if (!dense) ne.push_back(kind_.experts);
      Add(absl::StrCat(prefix, name, suffix), ne);
    }
    if (!dense) Add(prefix + "ffn_gate_inp.weight", {256, kind_.experts});
    // Of one row, which counts as a vector.
    if (kind_.shared && !dense) Add(prefix + "ffn_gate_inp_shexp.weight", {256, 1});
  }

  const Kind& kind_;
  GgufHeader header_;
};

// A header's bytes, each tensor's data and their padding.
template <typename MakeRow>
std::string Encode(GgufHeader header, MakeRow make_row) {
  if (!LayOutGgufTensors(header).ok()) std::abort();
  std::string bytes = EncodeGgufHeader(header).value();
  const size_t data = bytes.size();
  for (const GgufTensor& tensor : header.tensors) {
    bytes.resize(data + tensor.offset + tensor.bytes);
    std::vector<float> row(static_cast<size_t>(tensor.columns()));
    const uint64_t row_bytes = tensor.bytes / static_cast<uint64_t>(tensor.rows());
    for (int64_t i = 0; i < tensor.rows(); ++i) {
      make_row(tensor, i, row);
      auto* out = reinterpret_cast<std::byte*>(bytes.data() + data + tensor.offset) + i * row_bytes;
      if (!EncodeRow(tensor.dtype, row, out).ok()) std::abort();
    }
  }
  bytes.resize((bytes.size() + 31) / 32 * 32);
  return bytes;
}

}  // namespace

std::vector<std::string> MadeModelNames() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.push_back(kind.name);
  return names;
}

std::string MakeModel(const std::string& name) {
  Random random(0x9e3779b97f4a7c15u);
  return Encode(ModelMaker(FindKind(name)).header(),
                [&](const GgufTensor&, int64_t, std::vector<float>& row) {
                  for (float& value : row) value = random.Weight() / 16.0f;
                });
}

std::string MakeImportance(const std::string& name) {
  GgufHeader header;
  header.metadata.Set("general.type", GgufValue::String("imatrix"));
  header.metadata.Set("imatrix.datasets", GgufValue::Strings({"a text", "another"}));
  header.metadata.Set("imatrix.chunk_count", GgufValue::U32(7));
  header.metadata.Set("imatrix.chunk_size", GgufValue::U32(32));
  const ModelMaker model(FindKind(name));
  for (const GgufTensor& tensor : model.header().tensors) {
    if (tensor.ne.size() < 2 || absl::StartsWith(tensor.name, "token_embd")) continue;
    const int64_t matrices = tensor.ne.size() > 2 ? tensor.ne[2] : 1;
    header.tensors.push_back({tensor.name + ".in_sum2", DType::kF32, {tensor.ne[0], matrices}});
    header.tensors.push_back({tensor.name + ".counts", DType::kF32, {1, matrices}});
  }
  Random random(77);
  return Encode(
      std::move(header), [&](const GgufTensor& tensor, int64_t i, std::vector<float>& row) {
        const bool counts = absl::EndsWith(tensor.name, ".counts");
        for (float& value : row) {
          // The fourth expert was never chosen.
          value = counts ? (i == 3 ? 0.0f : static_cast<float>(random.Next() % 90 + 7))
                         : std::abs(random.Weight()) * (random.Next() % 16 == 0 ? 100.0f : 1.0f);
        }
      });
}

}  // namespace odmoe
