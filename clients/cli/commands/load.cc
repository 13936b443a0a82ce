// odmoe load MODEL: opens a model in an expert store and loads it in an inference service.
#include <memory>

#include "absl/strings/str_format.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "clients/cli/model/model_json.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/remote_language_model.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

struct LoadArguments {
  std::string path;
  std::string endpoint;
  std::string expert_store;
  std::string expert_budget = "auto";
  std::string source = "auto";
  int context_length = 0;
  OutputOptions output;
};

// Opening takes the whole arena from the system, which large ones feel.
constexpr absl::Duration kOpenTimeout = absl::Minutes(30);

absl::Status Run(const LoadArguments& options, Console& console) {
  if (options.endpoint.empty() && options.expert_store.empty()) {
    return UsageError("give --expert-store, --endpoint or both: which services are to load it");
  }
  const std::string path = AbsolutePath(options.path);
  Json json;
  if (!options.expert_store.empty()) {
    ODMOE_ASSIGN_OR_RETURN(const Budget budget, ParseBudget(options.expert_budget));
    ODMOE_ASSIGN_OR_RETURN(const SourceKind source, ParseSourceKind(options.source));
    ODMOE_ASSIGN_OR_RETURN(const auto store,
                           ExpertStorageAdmin::Connect(options.expert_store, kOpenTimeout));
    ODMOE_ASSIGN_OR_RETURN(const RemoteModel opened, store->OpenModel(path, budget, source));
    json["store"] = {{"model", opened.name},
                     {"budget_bytes", opened.budget_bytes},
                     {"slot_count", opened.slot_count},
                     {"expert_count", opened.expert_count},
                     {"expert_bytes", opened.expert_bytes}};
    if (!options.output.json && !options.output.quiet) {
      console.OutLine(absl::StrFormat(
          "%s: experts open, budget %s of %s: %d of %d resident at once", opened.name,
          FormatBytes(opened.budget_bytes), FormatBytes(opened.expert_bytes), opened.slot_count,
          opened.expert_count));
    }
  }
  if (!options.endpoint.empty()) {
    ODMOE_ASSIGN_OR_RETURN(const ModelInfo info,
                           LoadModel(options.endpoint, path, options.context_length));
    json["model"] = ModelInfoToJson(info);
    if (!options.output.json && !options.output.quiet) {
      console.OutLine(absl::StrFormat("%s: loaded, %s, %d layers, base model %s, context %d",
                                      info.name, info.architecture, info.layer_count,
                                      FormatBytes(info.base_bytes), info.context_length));
    }
  }
  if (options.output.json) console.OutLine(DumpJson(json));
  return absl::OkStatus();
}

}  // namespace

void AddLoadCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<LoadArguments>();
  CLI::App* command = app.add_subcommand(
      "load", "Open a model in an expert store and load it in an inference service");
  command->add_option("model", options->path, "Model directory, below the services' roots")
      ->required()
      ->type_name("MODEL");
  command
      ->add_option("--expert-store", options->expert_store,
                   "The expert-storage service that is to open the model's experts")
      ->type_name("ENDPOINT");
  AddEndpointOption(*command, options->endpoint,
                    "The inference service that is to load the model; its expert store must have "
                    "the model open");
  command
      ->add_option("--expert-budget", options->expert_budget,
                   "The store's memory for experts, a hard bound")
      ->type_name("25%|1.5GiB|auto")
      ->check(CheckedBy(ParseBudget));
  command->add_option("--source", options->source, "How the store reads experts")
      ->type_name("auto|direct|mmap")
      ->check(CheckedBy(ParseSourceKind));
  command
      ->add_option("--context", options->context_length,
                   "Tokens of prompt and continuation; 0: what the model was trained for")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 30));
  AddOutputOptions(*command, options->output);
  command->footer(
      "Examples:\n"
      "  odmoe load /models/kimi --expert-store 127.0.0.1:9001 --expert-budget 25%\n"
      "             --endpoint 127.0.0.1:9002");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
