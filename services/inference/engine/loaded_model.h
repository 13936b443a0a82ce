// Everything a running model consists of, in the order it is put together.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/core/experts/expert_store.h"
#include "services/core/formats/model_directory.h"
#include "services/core/generation/language_model.h"
#include "services/inference/engine/admission.h"
#include "services/inference/engine/local_language_model.h"
#include "services/inference/engine/turns.h"
#include "services/core/kernels/compute_pool.h"
#include "services/inference/model/config.h"
#include "services/inference/model/expert_predictor.h"
#include "services/inference/model/transformer.h"
#include "services/inference/model/weights.h"
#include "services/inference/tokenizer/tokenizer.h"

namespace odmoe {

// What is below `turns` belongs to whoever has the turn; the rest is immutable or thread-safe.
struct LoadedModel {
  ModelInfo info;
  std::shared_ptr<ExpertStore> store;
  std::shared_ptr<ExpertExecutor> remote_experts;  // null: there is none
  std::unique_ptr<BaseModel> base;
  std::unique_ptr<Tokenizer> tokenizer;
  ModelConfig config;
  ModelWeights weights;
  std::unique_ptr<Admission> admission;

  Turns turns;
  std::unique_ptr<ComputePool> pool;
  std::unique_ptr<ExpertPredictor> predictor;  // null: prediction is off
  std::unique_ptr<Transformer> transformer;
};

// Errors: as OpenLocalLanguageModel.
absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const LocalModelOptions& options);

}  // namespace odmoe
