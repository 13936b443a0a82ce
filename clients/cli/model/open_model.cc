#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/model/model_options.h"
#include "clients/cpp/remote_expert_executor.h"
#include "clients/cpp/remote_expert_source.h"
#include "clients/cpp/remote_language_model.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/status_macros.h"
#include "services/core/experts/no_expert_store.h"
#include "services/core/formats/model_directory.h"
#include "services/core/formats/model_path.h"
#include "services/expert_storage/open_expert_store.h"
#include "services/inference/engine/local_language_model.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

absl::Status CheckFlags(const ModelOptions& options) {
  const bool shared = !options.expert_store.empty();
  const bool remote = !options.remote_expert_store.empty();
  const bool helped = !options.remote_experts.empty();
  if (!options.endpoint.empty() && (shared || remote || helped)) {
    return UsageError(
        "--endpoint names an inference service, which has its own expert store: leave out "
        "--expert-store, --remote-expert-store and --remote-experts (or unset ODMOE_ENDPOINT)");
  }
  if (remote && helped) {
    return UsageError("give --remote-expert-store or --remote-experts, not both");
  }
  if (options.remote_mode != "auto" && !helped) {
    return UsageError("--remote-mode says how to use the store that --remote-experts names");
  }
  if (shared && remote) {
    return UsageError("give --expert-store or --remote-expert-store, not both");
  }
  if (shared && options.expert_budget != "auto") {
    return UsageError(
        "with --expert-store the budget is the store's: give --expert-budget where the model is "
        "opened (odmoe load, odmoe-expert-storage)");
  }
  if (!shared && !options.tenant.empty()) {
    return UsageError("--tenant names an account of the store that --expert-store connects to");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ExpertStore>> OpenExperts(const ModelOptions& options) {
  const std::string name = ModelName(options.model);
  ODMOE_ASSIGN_OR_RETURN(auto dense, ReadDenseRegistry(options.model));
  if (dense.has_value()) return MakeNoExpertStore(std::move(dense->catalog));
  if (!options.expert_store.empty()) {
    return ConnectSharedMemoryStore(options.expert_store, name, options.tenant);
  }
  OpenStoreOptions store;
  store.model_directory = options.model;
  ODMOE_ASSIGN_OR_RETURN(store.budget, ParseBudget(options.expert_budget));
  ODMOE_ASSIGN_OR_RETURN(store.source.kind, ParseSourceKind(options.source));
  store.source.also = options.also;
  store.prefetch = !options.no_prefetch;
  ODMOE_ASSIGN_OR_RETURN(store.policy, ParseEvictionPolicy(options.policy));
  const std::string& remote =
      options.remote_experts.empty() ? options.remote_expert_store : options.remote_experts;
  if (remote.empty()) return OpenExpertStore(store);
  ODMOE_ASSIGN_OR_RETURN(auto source, ConnectRemoteSource(remote, name));
  ODMOE_ASSIGN_OR_RETURN(const uint64_t demand, ReadDemand(options.model));
  return MakeExpertStore(std::move(source), store, demand);
}

// A file that is to be a GGUF model: what it is instead is for its reader to say.
absl::Status CheckModelFile(const std::string& path) {
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof(magic));
  if (absl::string_view(magic, sizeof(magic)) == "GGUF" || absl::EndsWith(path, ".gguf")) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      path, " is neither a model directory nor a GGUF file; odmoe convert SRC -o DIR makes a model "
      "directory"));
}

absl::Status OpenRemoteExecutor(const ModelOptions& options, LocalModelOptions& local,
                                std::string& warning) {
  if (options.remote_experts.empty()) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(local.remote_mode, ParseRemoteMode(options.remote_mode));
  ODMOE_ASSIGN_OR_RETURN(local.remote_experts,
                         ConnectRemoteExecutor(options.remote_experts, ModelName(options.model),
                                               local.remote_mode, warning));
  return absl::OkStatus();
}

}  // namespace

std::string ModelName(const std::string& path) {
  fs::path name = fs::path(path).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  if (name == "." || name == "..") {
    std::error_code error;
    const fs::path absolute = fs::canonical(name, error);
    if (!error) name = absolute;
  }
  return ModelNameOf(name.string());
}

absl::Status CheckModelDirectory(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    return absl::NotFoundError(absl::StrCat(
        "no such model: ", path, "; odmoe convert SRC -o ", path, " makes one from a checkpoint"));
  }
  if (!fs::is_directory(status)) return CheckModelFile(path);
  const fs::path directory(path);
  if (fs::exists(directory / "experts" / "registry.json", error)) return absl::OkStatus();
  if (fs::exists(directory / "config.json", error)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s is a Hugging Face checkpoint; convert it first: odmoe convert %s -o DIR", path, path));
  }
  return absl::NotFoundError(absl::StrCat(
      path, " is not a complete model directory: it has no experts/registry.json; "
      "odmoe convert SRC -o DIR makes one"));
}

absl::StatusOr<OpenedModel> OpenModel(const ModelOptions& options, InputObserver* observer) {
  ODMOE_RETURN_IF_ERROR(CheckFlags(options));
  OpenedModel opened;
  if (!options.endpoint.empty()) {
    ODMOE_ASSIGN_OR_RETURN(opened.model,
                           ConnectLanguageModel(options.endpoint, ModelName(options.model)));
    return opened;
  }
  ODMOE_RETURN_IF_ERROR(CheckModelDirectory(options.model));
  ODMOE_ASSIGN_OR_RETURN(opened.experts, OpenExperts(options));
  LocalModelOptions local;
  local.model_directory = options.model;
  local.experts = opened.experts;
  local.threads = options.threads;
  local.context_length = options.context_length;
  local.prefetch = !options.no_prefetch;
  local.observer = observer;
  // A dense model has nothing to be helped with.
  if (opened.experts->catalog().expert_count() > 0) {
    ODMOE_RETURN_IF_ERROR(OpenRemoteExecutor(options, local, opened.warning));
  }
  ODMOE_ASSIGN_OR_RETURN(opened.model, OpenLocalLanguageModel(local));
  return opened;
}

uint64_t ModelPeakRssBytes(const ModelOptions& options) {
  if (options.endpoint.empty()) return PeakRssBytes();
  const auto stats = GetInferenceStats(options.endpoint);
  return stats.ok() ? stats->peak_rss_bytes : 0;
}

}  // namespace odmoe
