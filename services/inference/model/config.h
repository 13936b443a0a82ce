// A model's hyper-parameters, read from its GGUF keys and checked.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// Rotary embedding. `yarn` follows the YaRN paper (arXiv 2309.00071) as DeepSeek-V3 applies it.
struct RopeConfig {
  enum class Scaling { kNone, kLinear, kYarn };
  int32_t dimensions = 0;  // rotated per head, even
  bool halves = false;     // a pair is (i, i + dimensions / 2), as in Hugging Face's models; else
                           // neighbours (2i, 2i + 1), as in DeepSeek's
  float base = 10000.0f;
  Scaling scaling = Scaling::kNone;
  float factor = 1.0f;             // context extension
  int32_t original_context = 0;    // tokens; kYarn
  float beta_fast = 32.0f;         // rotations within the original context above which a
  float beta_slow = 1.0f;          // frequency is kept, and below which it is interpolated
  float extrapolation = 1.0f;      // share of the kept frequencies that is kept
  float attention_factor = 1.0f;   // on cosines and sines
  float log_multiplier = 0.0f;     // 0.1 * mscale_all_dim
};

// What the cache keeps of a token: one compressed latent for all heads, or grouped heads' keys and
// values.
enum class AttentionKind { kLatent, kGrouped };

// On the gate of a feed-forward network: x * sigmoid(x), or max(x, 0)^2.
enum class Activation { kSilu, kReluSquared };

// How a token's experts are chosen and weighted.
struct RoutingConfig {
  enum class Gate { kSoftmax = 1, kSigmoid = 2 };  // ggml's numbers
  int32_t experts = 0;      // 0: the model is dense
  int32_t used = 0;         // per token
  int32_t groups = 1;       // experts divide evenly into so many groups,
  int32_t groups_used = 1;  // of which a token may choose from so many
  Gate gate = Gate::kSoftmax;
  bool normalize = false;   // weights of the chosen sum to 1, before the scale
  float scale = 1.0f;
};

// Dimensions are in elements.
struct ModelConfig {
  std::string architecture;
  int32_t vocabulary = 0;
  int32_t context = 0;          // tokens
  int32_t dim = 0;              // of the residual stream
  int32_t layers = 0;
  int32_t dense_layers = 0;     // the first so many have a plain feed-forward network
  int32_t dense_ffn = 0;        // its width; 0 where there is no such layer
  float norm_epsilon = 0.0f;

  Activation activation = Activation::kSilu;
  bool sub_norms = false;         // BitNet: a norm before each block's last projection
  bool int8_activations = false;  // BitNet: every layer's projections see rounded input

  AttentionKind attention = AttentionKind::kLatent;
  int32_t heads = 0;
  int32_t kv_heads = 1;         // kGrouped: divides heads
  int32_t q_lora = 0;           // kLatent; 0: queries are one projection
  int32_t kv_lora = 0;          // kLatent: the compressed latent the cache keeps
  int32_t nope = 0;             // of a head's query and key, not rotated
  int32_t value = 0;            // of a head's value
  RopeConfig rope;

  int32_t expert_ffn = 0;
  int32_t shared_ffn = 0;       // all shared experts side by side; 0: none
  RoutingConfig routing;

  bool IsMoe(int32_t layer) const { return routing.experts > 0 && layer >= dense_layers; }
  // A head's query and key.
  int32_t head_width() const { return nope + rope.dimensions; }
  // Floats the KV cache keeps per token and layer.
  int64_t cache_width() const {
    return attention == AttentionKind::kLatent ? int64_t{kv_lora} + rope.dimensions
                                               : int64_t{kv_heads} * (head_width() + value);
  }
  // What scores are multiplied by before the softmax: 1 / sqrt(head_width), and YaRN's temperature
  // squared.
  float attention_scale() const;
};

// INVALID_ARGUMENT: an architecture we do not run, or a key that is missing, mistyped, out of range
// or at odds with another; the message names it.
absl::StatusOr<ModelConfig> ReadModelConfig(const GgufMetadata& metadata);

}  // namespace odmoe
