// Name rules that families share, and how a family puts its table together.
#pragma once

#include <initializer_list>
#include <vector>

#include "absl/types/span.h"
#include "converter/huggingface/name_rules.h"

namespace odmoe {

// What config.json of a dense model has to say.
inline constexpr const char* kDenseRequired[] = {"vocab_size", "hidden_size", "intermediate_size",
                                                 "num_hidden_layers", "num_attention_heads"};

// Embedding, final norm and head.
absl::Span<const NameRule> ModelRules();
// input_layernorm, post_attention_layernorm.
absl::Span<const NameRule> LayerNormRules();
// q, k and v projections as they are, their optional biases, and the output projection.
absl::Span<const NameRule> AttentionRules();
// The same, query and key reordered from rotary halves to pairs.
absl::Span<const NameRule> RotaryAttentionRules();
// q_norm and k_norm, as wide as a head.
absl::Span<const NameRule> HeadNormRules();
// mlp.{gate,up,down}_proj of dense layers, with optional biases.
absl::Span<const NameRule> DenseRules();
// The router mlp.gate.
absl::Span<const NameRule> RouterRules();
// mlp.experts, expert by expert or fused, as wide as moe_intermediate_size says.
absl::Span<const NameRule> ExpertRules();

std::vector<NameRule> JoinRules(std::initializer_list<absl::Span<const NameRule>> tables);

}  // namespace odmoe
