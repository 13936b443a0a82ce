// odmoe resize BUDGET: gives an expert store another budget while it serves.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "clients/cpp/expert_storage_admin.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

struct ResizeArguments {
  std::string budget;
  std::string endpoint;
  std::string model;
  bool total = false;
  double timeout_seconds = 30.0;
  OutputOptions output;
};

// Beside what the store may wait for pins: growing takes the memory from the system.
constexpr absl::Duration kPopulateTime = absl::Minutes(30);

absl::Status Run(const ResizeArguments& options, Console& console) {
  if (options.endpoint.empty()) {
    return UsageError("give --endpoint (or set ODMOE_ENDPOINT): which expert store to resize");
  }
  ODMOE_ASSIGN_OR_RETURN(const Budget budget, ParseBudget(options.budget));
  const absl::Duration timeout = absl::Seconds(options.timeout_seconds);
  ODMOE_ASSIGN_OR_RETURN(const auto store,
                         ExpertStorageAdmin::Connect(options.endpoint, timeout + kPopulateTime));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<RemoteModel> models,
                         options.total ? store->ResizeTotalBudget(budget, timeout)
                                       : store->ResizeBudget(options.model, budget, timeout));
  Json json = Json::array();
  for (const RemoteModel& model : models) {
    json.push_back({{"model", model.name},
                    {"budget_bytes", model.budget_bytes},
                    {"slot_count", model.slot_count},
                    {"expert_count", model.expert_count}});
    if (options.output.json || options.output.quiet) continue;
    console.OutLine(absl::StrFormat("%s: budget %s, %d of %d experts resident at once", model.name,
                                    FormatBytes(model.budget_bytes), model.slot_count,
                                    model.expert_count));
  }
  if (options.output.json) console.OutLine(DumpJson(Json{{"models", std::move(json)}}));
  return absl::OkStatus();
}

}  // namespace

void AddResizeCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<ResizeArguments>();
  CLI::App* command =
      app.add_subcommand("resize", "Give an expert store another budget while it serves");
  command
      ->add_option("budget", options->budget,
                   "The memory for experts from now on: a share of all experts, a size, or auto")
      ->required()
      ->type_name("25%|1.5GiB|auto")
      ->check(CheckedBy(ParseBudget));
  AddEndpointOption(*command, options->endpoint, "The expert-storage service");
  CLI::Option* model =
      command
          ->add_option("--model", options->model, "Which model's; not needed if it is the only one")
          ->type_name("NAME");
  command->add_flag("--total", options->total, "The budget of all the store's models together")
      ->excludes(model);
  command
      ->add_option("--timeout", options->timeout_seconds,
                   "How long to wait for experts in use that must go")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.001, 3600.0));
  AddOutputOptions(*command, options->output);
  command->footer(
      "Examples:\n"
      "  odmoe resize 8GiB --endpoint 127.0.0.1:9001\n"
      "  odmoe resize 25% --model kimi --endpoint 127.0.0.1:9001\n"
      "  odmoe resize auto --total --endpoint 127.0.0.1:9001");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
