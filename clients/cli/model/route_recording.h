// The routing of a model in this process, recorded for odmoe replay.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cli/model/model_options.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/generation/language_model.h"
#include "services/core/io/file.h"

namespace odmoe {

// A usage error where `trace` names a file and the model is behind an endpoint.
absl::Status CheckTraceFlag(const std::string& trace, const ModelOptions& model);

// A trace in the making: its file is there, complete, once Finish has succeeded, and not at all
// otherwise.
class RouteRecording {
 public:
  // Errors of the file system where `path` cannot be written, before a model has run for nothing.
  // INVALID_ARGUMENT: a model without routed experts. `catalog` must outlive this.
  static absl::StatusOr<std::unique_ptr<RouteRecording>> Start(const std::string& path,
                                                              const std::string& model,
                                                              const ExpertCatalog& catalog);

  // The first `prefill_tokens` are a prompt's, the others were decoded one by one. Layers are
  // numbered among those with experts.
  absl::Status Finish(const ChosenExperts& chosen, size_t prefill_tokens);

 private:
  RouteRecording(std::string model, const ExpertCatalog& catalog, std::unique_ptr<AtomicFile> file)
      : model_(std::move(model)), catalog_(catalog), file_(std::move(file)) {}

  const std::string model_;
  const ExpertCatalog& catalog_;
  const std::unique_ptr<AtomicFile> file_;
};

}  // namespace odmoe
