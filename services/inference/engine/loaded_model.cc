#include "services/inference/engine/loaded_model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/core/base/available_cores.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/model_path.h"
#include "services/inference/shadow/next_router_predictor.h"

namespace odmoe {
namespace {

absl::Status CheckRange(absl::string_view option, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("option ", option, " is ", value, ", expected ", low, " to ", high));
}

absl::Status CheckOptions(const LocalModelOptions& options) {
  if (options.experts == nullptr) {
    return absl::InvalidArgumentError("option experts: no expert store was given");
  }
  ODMOE_RETURN_IF_ERROR(CheckRange("threads", options.threads, 0, 1024));
  ODMOE_RETURN_IF_ERROR(CheckRange("context_length", options.context_length, 0, 1 << 28));
  ODMOE_RETURN_IF_ERROR(CheckRange("max_waiting", options.max_waiting, 0, 1 << 20));
  return CheckRange("prefill_chunk", options.prefill_chunk, 1, 4096);
}

absl::Status CheckSameExperts(const LocalModelOptions& options) {
  if (options.remote_experts == nullptr) return absl::OkStatus();
  const std::string& here = options.experts->catalog().model_digest();
  const std::string& there = options.remote_experts->catalog().model_digest();
  if (here == there) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the experts of the second host are another model's: its digest is ", there,
                   ", expected ", here));
}

uint64_t KvBudget(const LocalModelOptions& options, const ModelConfig& config, int64_t context) {
  if (options.kv_budget_bytes > 0) return options.kv_budget_bytes;
  constexpr uint64_t kContexts = 4;
  const uint64_t wanted = kContexts * KvCache::BytesFor(config, context);
  const absl::StatusOr<uint64_t> available = AvailableMemoryBytes();
  return available.ok() ? std::min(wanted, *available / 4) : wanted;
}

// The longest context a single request's KV cache can have within the budget.
absl::StatusOr<int64_t> FitContext(const ModelConfig& config, int64_t context,
                                   uint64_t budget_bytes) {
  const uint64_t block_bytes = KvCache::BytesFor(config, 1);
  if (block_bytes > budget_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the KV cache has ", FormatBytes(budget_bytes), ", and ",
                     KvCache::kBlockTokens, " tokens take ", FormatBytes(block_bytes)));
  }
  const auto blocks = static_cast<int64_t>(
      std::min<uint64_t>(budget_bytes / block_bytes, uint64_t{1} << 32));
  return std::min(context, blocks * KvCache::kBlockTokens);
}

absl::Status CheckVocabulary(const Tokenizer& tokenizer, const ModelConfig& config) {
  if (tokenizer.vocabulary_size() <= config.vocabulary) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the tokenizer has ", tokenizer.vocabulary_size(),
                                                 " tokens, the model ", config.vocabulary));
}

absl::StatusOr<ModelInfo> DescribeModel(const LocalModelOptions& options, const LoadedModel& model,
                                        int64_t context) {
  ModelInfo info;
  info.name = ModelNameOf(options.model_directory);
  info.architecture = model.config.architecture;
  info.digest = model.store->catalog().model_digest();
  info.layer_count = model.config.layers;
  info.expert_count = model.config.routing.experts;
  info.experts_per_token = model.config.routing.used;
  info.vocabulary_size = model.config.vocabulary;
  info.context_length = static_cast<int32_t>(context);
  info.base_bytes = model.base->total_bytes();
  info.expert_bytes = model.store->catalog().total_bytes();
  ODMOE_ASSIGN_OR_RETURN(info.chat_template,
                         model.base->metadata().GetStringOr("tokenizer.chat_template", ""));
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const LocalModelOptions& options) {
  ODMOE_RETURN_IF_ERROR(CheckOptions(options));
  auto model = std::make_unique<LoadedModel>();
  model->store = options.experts;
  ODMOE_ASSIGN_OR_RETURN(model->base, BaseModel::Open(options.model_directory));
  ODMOE_RETURN_IF_ERROR(CheckSameExperts(options));
  // What is observed is computed here.
  if (options.observer == nullptr) model->remote_experts = options.remote_experts;
  ODMOE_ASSIGN_OR_RETURN(model->config, ReadModelConfig(model->base->metadata()));
  ODMOE_ASSIGN_OR_RETURN(model->tokenizer, Tokenizer::Create(model->base->metadata()));
  ODMOE_RETURN_IF_ERROR(CheckVocabulary(*model->tokenizer, model->config));
  ODMOE_ASSIGN_OR_RETURN(
      model->weights, FindModelWeights(model->config, *model->base, model->store->catalog(),
                                       options.observer));

  int64_t context = model->config.context;
  if (options.context_length > 0) context = std::min<int64_t>(context, options.context_length);
  const uint64_t kv_bytes = KvBudget(options, model->config, context);
  ODMOE_ASSIGN_OR_RETURN(context, FitContext(model->config, context, kv_bytes));
  model->admission = std::make_unique<Admission>(kv_bytes, options.max_waiting);
  ODMOE_ASSIGN_OR_RETURN(model->info, DescribeModel(options, *model, context));

  const int threads =
      options.threads > 0 ? options.threads : AvailableCores();
  model->pool = std::make_unique<ComputePool>(threads);
  if (options.prefetch && options.observer == nullptr && model->config.routing.experts > 0) {
    model->predictor =
        std::make_unique<NextRouterPredictor>(model->config, model->weights, *model->pool,
                                              NextRouterPredictor::DefaultWidth(model->config));
  }
  const int64_t step_tokens = std::min<int64_t>(options.prefill_chunk, context);
  model->transformer = std::make_unique<Transformer>(model->config, model->weights, *model->store,
                                                     *model->pool, step_tokens,
                                                     RemoteExperts{model->remote_experts.get(),
                                                                   options.remote_mode});
  return model;
}

}  // namespace odmoe
