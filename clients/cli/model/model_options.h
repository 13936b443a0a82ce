// Which model a command works on, and from where its weights come.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/core/experts/expert_store.h"
#include "services/core/generation/input_observer.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

struct ModelOptions {
  std::string model;     // a model directory or GGUF file; with an endpoint the loaded model's name
  std::string endpoint;  // of an inference service; empty: in this process
  // In this process, the experts come from the model directory under a budget, unless one of these
  // names a store that has the model open: on this host by shared memory, or on any by streams into
  // a store of our own under the budget.
  std::string expert_store;
  std::string tenant;
  std::string remote_expert_store;
  // A store on a second host, for the experts that are not resident here: streamed from there into
  // a store of our own, unless --expert-store names one, or computed there.
  std::string remote_experts;
  std::string remote_mode = "auto";
  std::string expert_budget = "auto";
  std::string source = "auto";
  std::vector<std::string> also;  // more directories with the model's files
  bool no_prefetch = false;
  std::string policy = "default";
  int threads = 0;         // 0: as many as the process may run on
  int context_length = 0;  // 0: the model's
};

// Adds MODEL, --endpoint, and the flags of a model in this process.
void AddModelOptions(CLI::App& command, ModelOptions& options);
// Adds MODEL and the flags of a model in this process only.
void AddLocalModelOptions(CLI::App& command, ModelOptions& options);

// A model ready for use. The store outlives the model; null when the model is behind an endpoint.
struct OpenedModel {
  std::shared_ptr<ExpertStore> experts;
  std::unique_ptr<LanguageModel> model;
  std::string warning;  // for the user; empty: all is as asked
};

// Opens the model as the options say. Errors say what to do: convert first, load it in the service,
// give more budget. A usage error where flags contradict each other. `observer`, where it is not
// null, sees what a model in this process multiplies, and must outlive it.
absl::StatusOr<OpenedModel> OpenModel(const ModelOptions& options,
                                      InputObserver* observer = nullptr);

// OK for a complete model directory and a GGUF file. NOT_FOUND, INVALID_ARGUMENT: what is there
// instead, and the command that makes one out of it.
absl::Status CheckModelDirectory(const std::string& path);

// The name requests give a model: ModelNameOf its path, "." and ".." resolved.
std::string ModelName(const std::string& path);

// Peak resident bytes of the process that runs the model: this one, or the inference service; 0
// where that does not say.
uint64_t ModelPeakRssBytes(const ModelOptions& options);

}  // namespace odmoe
