#include "converter/huggingface/dimension.h"

namespace odmoe {

Dimension DimensionOf(const CheckpointConfig& c, Dim dim) {
  switch (dim) {
    case Dim::kNone:
      return {};
    case Dim::kOne:
      return {1, "1"};
    case Dim::kVocabulary:
      return {c.vocab_size, "vocab_size"};
    case Dim::kHidden:
      return {c.hidden_size, "hidden_size"};
    case Dim::kFeedForward:
      return {c.intermediate_size, "intermediate_size"};
    case Dim::kExperts:
      return {c.num_experts, c.num_experts_key};
    case Dim::kExpertFeedForward:
      return {c.moe_intermediate_size, "moe_intermediate_size"};
    case Dim::kTwoExpertFeedForward:
      return {2 * c.moe_intermediate_size, "2 * moe_intermediate_size"};
    case Dim::kTwoFeedForward:
      return {2 * c.intermediate_size, "2 * intermediate_size"};
    case Dim::kSharedFeedForward:
      return {c.moe_intermediate_size * c.n_shared_experts,
              "moe_intermediate_size * n_shared_experts"};
    case Dim::kSharedExpertFeedForward:
      return {c.shared_expert_intermediate_size, "shared_expert_intermediate_size"};
    case Dim::kHead:
      return {c.HeadWidth(), c.head_dim > 0 ? "head_dim" : "hidden_size / num_attention_heads"};
    case Dim::kQueryHeads:
      return {c.num_attention_heads * c.HeadWidth(),
              c.head_dim > 0 ? "num_attention_heads * head_dim" : "hidden_size"};
    case Dim::kKeyHeads:
      return {c.KeyHeads() * c.HeadWidth(),
              c.head_dim > 0 ? "num_key_value_heads * head_dim"
                             : "num_key_value_heads * hidden_size / num_attention_heads"};
    case Dim::kQueryRank:
      return {c.q_lora_rank, "q_lora_rank"};
    case Dim::kLatentQueryHeads:
      return {c.num_attention_heads * (c.qk_nope_head_dim + c.qk_rope_head_dim),
              "num_attention_heads * (qk_nope_head_dim + qk_rope_head_dim)"};
    case Dim::kKeyValueLatent:
      return {c.kv_lora_rank + c.qk_rope_head_dim, "kv_lora_rank + qk_rope_head_dim"};
    case Dim::kKeyValueRank:
      return {c.kv_lora_rank, "kv_lora_rank"};
    case Dim::kKeyValueHeads:
      return {c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim),
              "num_attention_heads * (qk_nope_head_dim + v_head_dim)"};
    case Dim::kValueHeads:
      return {c.num_attention_heads * c.v_head_dim, "num_attention_heads * v_head_dim"};
  }
  return {};
}

}  // namespace odmoe
