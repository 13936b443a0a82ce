// The gRPC face of a language model: loads it, serves it, counts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/core/generation/language_model.h"

namespace grpc {
class Service;
}

namespace odmoe {

// Opens the model directory `path`, which is resolved and below a root. `context_length` 0: the
// model's own.
using ModelFactory = std::function<absl::StatusOr<std::unique_ptr<LanguageModel>>(
    const std::string& path, int32_t context_length)>;

struct InferenceServiceOptions {
  ModelFactory open_model;
  std::vector<std::string> roots;  // folders that models may lie in; at least one
  int max_calls = 96;              // Generate and Score calls at once, running and waiting
};

// Serves odmoe.inference.v1.InferenceService. Thread-safe. Destroy it after the server that serves
// it has shut down.
class InferenceService {
 public:
  // INVALID_ARGUMENT, NOT_FOUND: a root that is no folder, or none.
  static absl::StatusOr<std::unique_ptr<InferenceService>> Create(InferenceServiceOptions options);
  virtual ~InferenceService() = default;

  virtual grpc::Service* grpc_service() = 0;
  // "odmoe.inference.v1.InferenceService", for health checks.
  static const char* Name();

  // As the RPC.
  virtual absl::StatusOr<ModelInfo> LoadModel(const std::string& path, int32_t context_length) = 0;

  // Calls `observer` now and whenever it changes with whether requests would be served: a model is
  // loaded and admission has not stopped. One observer, until the service's end or a null one.
  virtual void ObserveReadiness(std::function<void(bool)> observer) = 0;

  // What the service counts and of which model, and this process' own figures, as Prometheus
  // collects them (inference_metrics.h).
  virtual std::string MetricsText() const = 0;

  // From now on Generate, Score and LoadModel are refused with UNAVAILABLE; those under way go on.
  virtual void StopAdmission() = 0;
};

}  // namespace odmoe
