// The tiny BitNet checkpoint of tests/data/bitnet, in every form such checkpoints come in.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace odmoe {

// How the projections are stored.
enum class BitnetStorage {
  kPacked,   // U8, four weights to a byte, and a weight_scale
  kOnline,   // bf16, to be rounded by the layers
  kTernary,  // bf16, but -1, 0 and 1 times the scale already, as if decoded; no quantization_config
};

struct BitnetOptions {
  BitnetStorage storage = BitnetStorage::kPacked;
  bool scale_divides = false;  // linear_class "bitlinear": weight_scale holds 1 / scale
  bool old_spelling = false;   // BitnetForCausalLM, inner_attn_ln, ffn_layernorm
  std::string hidden_act = "relu2";
};

// A projection as the checkpoint means it.
struct BitnetProjection {
  std::string name;  // "model.layers.0.mlp.up_proj.weight"
  std::string gguf;  // "blk.0.ffn_up.weight"
  int64_t rows = 0, columns = 0;
  std::vector<int8_t> codes;  // -1, 0, 1
  float scale = 0.0f;
};

// What reference.json holds.
const nlohmann::json& BitnetReference();

// All projections, those of kOnline rounded as the layers round them.
std::vector<BitnetProjection> BitnetProjections(BitnetStorage storage);

// Writes the checkpoint, tokenizer and all, into the folder `path`, which is made.
void WriteBitnetCheckpoint(const BitnetOptions& options, const std::string& path);

}  // namespace odmoe
