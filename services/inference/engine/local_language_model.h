// A model running in this process: base weights mapped from a model directory or a GGUF file,
// experts from an ExpertStore, text in and text out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/core/experts/expert_executor.h"
#include "services/core/experts/expert_store.h"
#include "services/core/experts/remote_mode.h"
#include "services/core/generation/input_observer.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

struct LocalModelOptions {
  std::string model_directory;  // or a GGUF file
  // Where the experts come from. Its catalog must be the model's.
  std::shared_ptr<ExpertStore> experts;
  // A second host that computes experts which are not resident here; null: there is none.
  std::shared_ptr<ExpertExecutor> remote_experts;
  RemoteMode remote_mode = RemoteMode::kAuto;
  int threads = 0;         // 0: as many as the process may run on
  int context_length = 0;  // tokens a request may use; 0: the model's, and never more than that
  bool prefetch = true;    // predict the next layer's experts and ask the store for them early
  int max_waiting = 64;    // requests that may wait to be let in; more are refused
  // Tokens of a prompt that one step takes; longer ones amortize weights, shorter ones let others
  // have their turn sooner. Results do not depend on it.
  int prefill_chunk = 64;
  // Memory all requests' KV caches may take together. 0: four full contexts, but at most a quarter
  // of the memory the process could still take.
  uint64_t kv_budget_bytes = 0;
  // Told of what goes into each weight's products, by whoever has the turn; null: nobody is. The
  // model then predicts nothing, as that multiplies too. Must outlive the model.
  InputObserver* observer = nullptr;
};

// Opens the model: reads its metadata, maps its weights, checks every shape.
// Info().name is ModelNameOf the path. The LanguageModel is thread-safe: requests share
// the machine step by step, in turn, and see the same tokens as if they were alone.
// NOT_FOUND: no model there. INVALID_ARGUMENT: an option out of range, an architecture we do
// not run, or a key or tensor that is missing or has the wrong shape (named). UNIMPLEMENTED:
// weights in a format no kernel multiplies by. FAILED_PRECONDITION: the store holds another model's
// experts. RESOURCE_EXHAUSTED: a KV budget below one block of tokens.
absl::StatusOr<std::unique_ptr<LanguageModel>> OpenLocalLanguageModel(LocalModelOptions options);

}  // namespace odmoe
