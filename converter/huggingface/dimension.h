// The sizes that weights have, by what config.json says.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "converter/huggingface/checkpoint_config.h"

namespace odmoe {

// A dimension of a weight.
enum class Dim {
  kNone,
  kOne,
  kVocabulary,
  kHidden,
  kFeedForward,
  kExperts,
  kExpertFeedForward,
  kTwoExpertFeedForward,   // gate and up in one
  kTwoFeedForward,         // the same, where experts are as wide as intermediate_size says
  kSharedFeedForward,      // of n_shared_experts shared experts as one
  kSharedExpertFeedForward,
  kHead,
  kQueryHeads,
  kKeyHeads,
  kQueryRank,              // from here on: multi-head latent attention
  kLatentQueryHeads,
  kKeyValueLatent,
  kKeyValueRank,
  kKeyValueHeads,
  kValueHeads,
};

// How large it is, and the settings that say so, for messages: "num_attention_heads * head_dim".
struct Dimension {
  int64_t size = 0;  // 0: the model has none
  absl::string_view settings;
};
Dimension DimensionOf(const CheckpointConfig& config, Dim dim);

}  // namespace odmoe
