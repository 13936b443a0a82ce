// A model loaded in an inference service, and what an operator asks of the service.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// The model `model` of the service at `endpoint`, "HOST:PORT" or "unix:/path"; empty: whichever is
// loaded. Connects with its first call; every call fails with UNAVAILABLE, naming the endpoint,
// while the service cannot be reached, and none is repeated. Deadlines and cancellation are passed
// on. INVALID_ARGUMENT: no such form of endpoint.
//
// When on_token ends a generation, the summary is what the client knows of it: the tokens it got
// and the time they took, kCancelled.
absl::StatusOr<std::unique_ptr<LanguageModel>> ConnectLanguageModel(const std::string& endpoint,
                                                                    const std::string& model);

// Mirrors odmoe.inference.v1.StatsResponse.
struct InferenceStats {
  int64_t requests_running = 0;  // gauge
  int64_t requests_waiting = 0;  // gauge
  int64_t requests = 0;          // ended, all outcomes
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  ExpertUse experts;  // summed over requests
  uint64_t peak_rss_bytes = 0;
  absl::Duration uptime;
};

// One call each, with the codes of odmoe.inference.v1.InferenceService and UNAVAILABLE where nobody
// answers. Loading may take minutes; `context_length` 0: what the model was trained for.
absl::StatusOr<ModelInfo> LoadModel(const std::string& endpoint, const std::string& path,
                                    int32_t context_length);
// An empty `model` names the loaded one. Waits until its requests have ended.
absl::Status UnloadModel(const std::string& endpoint, const std::string& model);
absl::StatusOr<InferenceStats> GetInferenceStats(const std::string& endpoint);

}  // namespace odmoe
