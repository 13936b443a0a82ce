// A model's base weights, found by name in a model directory and checked against its config.
// Shapes are [rows, columns]; a product takes `columns` activations and gives `rows`.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/formats/model_directory.h"
#include "services/core/kernels/weight_matrix.h"
#include "services/inference/model/config.h"

namespace odmoe {

// Of multi-head latent attention (DeepSeek-V2 report, section 2.1), or of grouped heads.
struct AttentionWeights {
  std::vector<float> norm;       // [dim]
  std::vector<float> sub_norm;   // [heads * value], on what `output` takes; or empty
  WeightMatrix output;           // [dim, heads * value]
  WeightMatrix q;                // [heads * head_width, dim]; where q_lora is 0
  WeightMatrix k;                // [kv_heads * head_width, dim]; grouped
  WeightMatrix v;                // [kv_heads * value, dim]; grouped
  // From here on: latent.
  WeightMatrix q_a;              // [q_lora, dim]
  std::vector<float> q_a_norm;   // [q_lora]
  WeightMatrix q_b;              // [heads * head_width, q_lora]
  WeightMatrix kv_a;             // [kv_lora + rope, dim]
  std::vector<float> kv_a_norm;  // [kv_lora]
  WeightMatrix k_b;              // [heads * kv_lora, nope]: per head, query to latent
  WeightMatrix v_b;              // [heads * value, kv_lora]: per head, latent to value
};

// A gated feed-forward network: down norm (activation(gate x) * up x).
struct FeedForwardWeights {
  WeightMatrix gate;  // [ffn, dim]
  WeightMatrix up;    // [ffn, dim]
  WeightMatrix down;  // [dim, ffn]
  std::vector<float> sub_norm;  // [ffn], on what `down` takes; or empty
};

struct LayerWeights {
  AttentionWeights attention;
  std::vector<float> ffn_norm;   // [dim]
  FeedForwardWeights ffn;        // of a dense layer; of the shared experts in an MoE layer
  bool has_ffn = false;          // an MoE layer may have no shared expert
  WeightMatrix router;           // [experts, dim]; MoE layers
  std::vector<float> router_bias;          // [experts] or empty
  const LayerExperts* experts = nullptr;   // MoE layers
  const ObservedTensor* observed_experts[3] = {};  // w1, w2, w3; null: nobody wants to know
};

struct ModelWeights {
  WeightMatrix embeddings;         // [vocabulary, dim]
  std::vector<LayerWeights> layers;
  std::vector<float> output_norm;  // [dim]
  WeightMatrix output;             // [vocabulary, dim]; the embeddings where they are tied
  std::vector<std::unique_ptr<const ObservedTensor>> observed;  // those that matrices point at
};

// Views into `base` and `experts`, which must outlive them, as must `observer`: it is told of each
// product with these weights; null: nobody is.
// INVALID_ARGUMENT: a tensor is missing, or its shape is not the one above (both are named).
// UNIMPLEMENTED: a format no kernel multiplies by. FAILED_PRECONDITION: the experts are not this
// model's.
absl::StatusOr<ModelWeights> FindModelWeights(const ModelConfig& config, const BaseModel& base,
                                              const ExpertCatalog& experts,
                                              InputObserver* observer = nullptr);

}  // namespace odmoe
