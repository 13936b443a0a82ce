#include "tests/support/bitnet_checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>

#include "services/core/formats/safetensors.h"
#include "services/core/tensor/convert.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

constexpr int64_t kHidden = 256, kFfn = 512, kKeys = 128, kVocabulary = 280, kLayers = 2;

uint32_t NameHash(const std::string& name) {  // FNV-1a
  uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return hash;
}

std::vector<float> Made(const std::string& name, int64_t count,
                        const std::function<float(int32_t word)>& value) {
  uint32_t state = NameHash(name);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    values.push_back(value(static_cast<int32_t>(state >> 8)));
  }
  return values;
}

std::vector<float> RawWeights(const BitnetProjection& p) {
  return Made(p.name, p.rows * p.columns,
              [](int32_t word) { return static_cast<float>(word % 255 - 127) / 1024.0f; });
}

void SetOnline(BitnetProjection& p) {
  const std::vector<float> raw = RawWeights(p);
  double sum = 0.0;
  for (const float w : raw) sum += std::fabs(w);
  const double scale = sum / static_cast<double>(raw.size());
  p.scale = static_cast<float>(scale);
  for (const float w : raw) {
    p.codes.push_back(static_cast<int8_t>(std::clamp(std::nearbyint(w / scale), -1.0, 1.0)));
  }
}

void SetPacked(BitnetProjection& p) {
  p.scale = 0.0625f * (1.0f + static_cast<float>(NameHash(p.name) % 4) / 4.0f);
  for (const float code : Made(p.name, p.rows * p.columns,
                               [](int32_t word) { return static_cast<float>(word % 3 - 1); })) {
    p.codes.push_back(static_cast<int8_t>(code));
  }
}

// Tensors of a file, gathered.
class File {
 public:
  void Add(const std::string& name, const char* dtype, std::vector<int64_t> shape,
           const std::string& bytes) {
    tensors_.push_back(
        {.name = name, .dtype = dtype, .shape = std::move(shape), .bytes = bytes.size()});
    data_ += bytes;
  }
  void AddBF16(const std::string& name, std::vector<int64_t> shape,
               const std::vector<float>& values) {
    std::string bytes(2 * values.size(), '\0');
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t bits = F32ToBF16(values[i]);
      std::memcpy(bytes.data() + 2 * i, &bits, sizeof(bits));
    }
    Add(name, "BF16", std::move(shape), bytes);
  }
  void Write(const std::string& path) {
    const auto header = EncodeSafetensorsHeader(tensors_, {}, 8);
    ASSERT_TRUE(header.ok()) << header.status();
    WriteFileOrDie(path, *header + data_);
  }

 private:
  std::vector<SafetensorsTensor> tensors_;
  std::string data_;
};

// The values are those of `name`, whatever it is stored as.
void AddNorm(const std::string& name, const std::string& stored_as, int64_t size, File& file) {
  file.AddBF16(stored_as, {size}, Made(name, size, [](int32_t word) {
                 return 1.0f + static_cast<float>(word % 17 - 8) / 64.0f;
               }));
}

void AddPacked(const BitnetProjection& p, bool divides, File& file) {
  const int64_t packed_rows = p.rows / 4;
  std::string bytes(static_cast<size_t>(packed_rows * p.columns), '\0');
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int64_t column = 0; column < p.columns; ++column) {
      const int code = p.codes[static_cast<size_t>(row * p.columns + column)] + 1;
      bytes[static_cast<size_t>(row % packed_rows * p.columns + column)] |=
          static_cast<char>(code << (2 * (row / packed_rows)));
    }
  }
  file.Add(p.name, "U8", {packed_rows, p.columns}, bytes);
  file.AddBF16(p.name + "_scale", {1}, {divides ? 1.0f / p.scale : p.scale});
}

void AddProjection(const BitnetProjection& p, const BitnetOptions& options, File& file) {
  if (options.storage == BitnetStorage::kPacked) return AddPacked(p, options.scale_divides, file);
  std::vector<float> values = RawWeights(p);
  for (size_t i = 0; options.storage == BitnetStorage::kTernary && i < values.size(); ++i) {
    values[i] = static_cast<float>(p.codes[i]) * p.scale;
  }
  file.AddBF16(p.name, {p.rows, p.columns}, values);
}

}  // namespace

const nlohmann::json& BitnetReference() {
  static const auto* reference = new nlohmann::json(
      nlohmann::json::parse(ReadFileOrDie(ODMOE_TEST_DATA "/bitnet/reference.json")));
  return *reference;
}

std::vector<BitnetProjection> BitnetProjections(BitnetStorage storage) {
  struct Row {
    const char* name;
    const char* gguf;
    int64_t rows, columns;
  };
  const Row rows[] = {
      {"self_attn.q_proj", "attn_q", kHidden, kHidden},
      {"self_attn.k_proj", "attn_k", kKeys, kHidden},
      {"self_attn.v_proj", "attn_v", kKeys, kHidden},
      {"self_attn.o_proj", "attn_output", kHidden, kHidden},
      {"mlp.gate_proj", "ffn_gate", kFfn, kHidden},
      {"mlp.up_proj", "ffn_up", kFfn, kHidden},
      {"mlp.down_proj", "ffn_down", kHidden, kFfn},
  };
  std::vector<BitnetProjection> projections;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string number = std::to_string(layer);
    for (const Row& row : rows) {
      BitnetProjection p = {.name = "model.layers." + number + "." + row.name + ".weight",
                            .gguf = "blk." + number + "." + row.gguf + ".weight",
                            .rows = row.rows,
                            .columns = row.columns};
      storage == BitnetStorage::kOnline ? SetOnline(p) : SetPacked(p);
      projections.push_back(std::move(p));
    }
  }
  return projections;
}

void WriteBitnetCheckpoint(const BitnetOptions& options, const std::string& path) {
  std::filesystem::create_directories(path);
  nlohmann::json config = BitnetReference()["config"];
  nlohmann::json& quantization = config["quantization_config"];
  if (options.old_spelling) config["architectures"] = {"BitnetForCausalLM"};
  config["hidden_act"] = options.hidden_act;
  if (options.scale_divides) quantization["linear_class"] = "bitlinear";
  if (options.storage == BitnetStorage::kOnline) quantization["quantization_mode"] = "online";
  if (options.storage == BitnetStorage::kTernary) config.erase("quantization_config");
  WriteFileOrDie(path + "/config.json", config.dump());
  WriteFileOrDie(path + "/tokenizer.json",
                 ReadFileOrDie(ODMOE_TEST_DATA "/checkpoints/tokenizer.json"));

  File file;
  const std::string embedding = "model.embed_tokens.weight";
  file.AddBF16(embedding, {kVocabulary, kHidden},
               Made(embedding, kVocabulary * kHidden,
                    [](int32_t word) { return static_cast<float>(word % 127 - 63) / 256.0f; }));
  AddNorm("model.norm.weight", "model.norm.weight", kHidden, file);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string p = "model.layers." + std::to_string(layer) + ".";
    const bool old = options.old_spelling;
    const auto add = [&](const std::string& name, const std::string& stored_as, int64_t size) {
      AddNorm(p + name + ".weight", p + stored_as + ".weight", size, file);
    };
    add("input_layernorm", "input_layernorm", kHidden);
    add("post_attention_layernorm", "post_attention_layernorm", kHidden);
    add("self_attn.attn_sub_norm", old ? "self_attn.inner_attn_ln" : "self_attn.attn_sub_norm",
        kHidden);
    add("mlp.ffn_sub_norm", old ? "mlp.ffn_layernorm" : "mlp.ffn_sub_norm", kFfn);
  }
  for (const BitnetProjection& projection : BitnetProjections(options.storage)) {
    AddProjection(projection, options, file);
  }
  file.Write(path + "/model.safetensors");
}

}  // namespace odmoe
