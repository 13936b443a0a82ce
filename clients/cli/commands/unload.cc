// odmoe unload [MODEL]: takes a model out of an inference service and closes it in an expert store.
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/remote_language_model.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/model_path.h"

namespace odmoe {
namespace {

struct UnloadArguments {
  std::string model;
  std::string endpoint;
  std::string expert_store;
  OutputOptions output;
};

// The store hears of an inference service's end of session a moment after that has answered.
constexpr absl::Duration kSessionEnds = absl::Seconds(3);
constexpr absl::Duration kCloseRetry = absl::Milliseconds(50);

absl::Status CloseInStore(const std::string& endpoint, const std::string& model) {
  ODMOE_ASSIGN_OR_RETURN(const auto store, ExpertStorageAdmin::Connect(endpoint));
  const absl::Time give_up = absl::Now() + kSessionEnds;
  while (true) {
    const absl::Status status = store->CloseModel(model);
    if (!absl::IsFailedPrecondition(status) || absl::Now() >= give_up) return status;
    absl::SleepFor(kCloseRetry);
  }
}

absl::Status Run(const UnloadArguments& options, Console& console) {
  if (options.endpoint.empty() && options.expert_store.empty()) {
    return UsageError("give --endpoint, --expert-store or both: which services are to unload it");
  }
  const std::string model = ModelNameOf(options.model);
  Json unloaded = Json::array();
  const auto note = [&](const char* from, const std::string& endpoint) {
    unloaded.push_back({{"service", from}, {"endpoint", endpoint}});
    if (options.output.json || options.output.quiet) return;
    console.OutLine(absl::StrCat(model.empty() ? "the only model" : model, ": no longer in ", from,
                                 " at ", endpoint));
  };
  if (!options.endpoint.empty()) {
    ODMOE_RETURN_IF_ERROR(UnloadModel(options.endpoint, model));
    note("inference", options.endpoint);
  }
  if (!options.expert_store.empty()) {
    ODMOE_RETURN_IF_ERROR(CloseInStore(options.expert_store, model));
    note("expert storage", options.expert_store);
  }
  if (options.output.json) {
    console.OutLine(DumpJson(Json{{"model", model}, {"unloaded", std::move(unloaded)}}));
  }
  return absl::OkStatus();
}

}  // namespace

void AddUnloadCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<UnloadArguments>();
  CLI::App* command = app.add_subcommand(
      "unload", "Take a model out of an inference service and close it in an expert store");
  command
      ->add_option("model", options->model,
                   "The model's name, or its path; not needed if it is the only one")
      ->type_name("MODEL");
  AddEndpointOption(*command, options->endpoint,
                    "The inference service that is to unload it, once its requests have ended");
  command
      ->add_option("--expert-store", options->expert_store,
                   "The expert-storage service that is to close it and give its memory back; "
                   "refused while others use it")
      ->type_name("ENDPOINT");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Examples:\n"
      "  odmoe unload --endpoint 127.0.0.1:9002\n"
      "  odmoe unload kimi --endpoint 127.0.0.1:9002 --expert-store 127.0.0.1:9001");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
