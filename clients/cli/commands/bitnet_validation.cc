#include "clients/cli/commands/bitnet_validation.h"

#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/experts/no_expert_store.h"
#include "services/core/formats/model_directory.h"
#include "services/inference/engine/local_language_model.h"

namespace odmoe {
namespace {

constexpr int kGeneratedTokens = 16;

// A folder that is removed with what is in it.
class ScratchFolder {
 public:
  explicit ScratchFolder(std::string path) : path_(std::move(path)) { Remove(); }
  ~ScratchFolder() { Remove(); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  void Remove() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string path_;
};

absl::StatusOr<std::string> Generate(const std::string& gguf) {
  const ScratchFolder folder(absl::StrCat(gguf, ".validation"));
  ODMOE_ASSIGN_OR_RETURN(
      const ConvertPlan split,
      PlanConversion({.source = gguf, .destination = folder.path(), .restart = true}));
  ODMOE_RETURN_IF_ERROR(RunConversion(split, nullptr, [](const ConvertProgress&) {}));
  ODMOE_ASSIGN_OR_RETURN(auto dense, ReadDenseRegistry(folder.path()));
  if (!dense.has_value()) {
    return absl::UnimplementedError("the model has routed experts, which no BitNet model has");
  }
  ODMOE_ASSIGN_OR_RETURN(
      const std::unique_ptr<LanguageModel> model,
      OpenLocalLanguageModel({.model_directory = folder.path(),
                              .experts = MakeNoExpertStore(std::move(dense->catalog))}));
  GenerateRequest request;
  ODMOE_ASSIGN_OR_RETURN(request.prompt.tokens, model->Tokenize("The", {}));
  if (request.prompt.tokens.empty()) request.prompt.tokens = {0};
  request.max_tokens = kGeneratedTokens;
  request.sampling.temperature = 0.0f;
  request.ignore_eos = true;
  request.logprobs = true;
  std::string text;
  bool numbers = true;
  ODMOE_ASSIGN_OR_RETURN(const GenerateSummary summary,
                         model->Generate(request, {}, [&](const TokenEvent& event) {
                           numbers = numbers && std::isfinite(event.logprob);
                           text += event.text;
                           return true;
                         }));
  if (numbers && summary.completion_tokens == kGeneratedTokens) return text + summary.tail;
  return absl::InternalError(absl::StrCat(gguf, ": generated ", summary.completion_tokens, " of ",
                                          kGeneratedTokens, " tokens, and their probabilities are ",
                                          numbers ? "" : "not all ", "numbers"));
}

}  // namespace

absl::StatusOr<BitnetValidation> ValidateBitnetFile(const ConvertPlan& plan,
                                                    const TernaryReport& report,
                                                    const std::string& kernels) {
  FileSystem& fs = PosixFileSystem();
  const std::string& path = plan.options.destination;
  BitnetValidation validation;
  std::error_code error;
  validation.bytes = std::filesystem::file_size(path, error);
  if (error || validation.bytes != plan.disk_bytes) {
    return absl::DataLossError(absl::StrCat(path, ": has ", error ? 0 : validation.bytes,
                                            " bytes, expected ", plan.disk_bytes));
  }
  std::optional<KernelConfig> config;
  const bool tiled = plan.options.outtype == "tl1" || plan.options.outtype == "tl2";
  if (tiled) {
    constexpr uint64_t kMaxKernelConfigBytes = 64 * kKiB;
    ODMOE_ASSIGN_OR_RETURN(const std::string ini,
                           ReadWholeFile(fs, kernels, kMaxKernelConfigBytes));
    ODMOE_ASSIGN_OR_RETURN(
        config,
        ParseKernelIni(plan.options.outtype == "tl1" ? DType::kTL1 : DType::kTL2, ini, kernels));
  }
  ODMOE_ASSIGN_OR_RETURN(
      validation.weights,
      VerifyTernaryFile(fs, path, report, config.has_value() ? &*config : nullptr));
  if (tiled) {
    validation.generation = "not run, since only BitNet's runtime has its kernels";
    return validation;
  }
  ODMOE_ASSIGN_OR_RETURN(validation.text, Generate(path));
  validation.generation = absl::StrCat("generates ", kGeneratedTokens, " tokens");
  return validation;
}

}  // namespace odmoe
