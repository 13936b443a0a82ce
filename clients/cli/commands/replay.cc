// odmoe replay TRACE --policy P --budget X
#include <memory>
#include <string>
#include <vector>

#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/commands/replay_report.h"
#include "clients/cli/json_output.h"
#include "services/core/base/status_macros.h"
#include "services/expert_storage/replay/replay.h"

namespace odmoe {
namespace {

struct ReplayArguments {
  std::string trace;
  std::vector<std::string> policies = {"default", "next-use", "lfru", "lfu", "lru", "belady"};
  std::vector<std::string> budgets = {"0.5x", "0.9x", "1.5x", "2.5x", "4x", "8x"};
  std::string svg;
  OutputOptions output;
};

absl::StatusOr<ReplayReport::BudgetRuns> RunBudget(const ReplayArguments& options,
                                                   const RouteTrace& trace,
                                                   const std::string& text) {
  ReplayReport::BudgetRuns runs;
  ODMOE_ASSIGN_OR_RETURN(runs.budget, ParseReplayBudget(text));
  ODMOE_ASSIGN_OR_RETURN(const int64_t slots, ResolveReplayBudget(runs.budget, trace));
  const ReplayPolicy lru = {PolicyKind::kLru};
  const ReplayPolicy belady;
  ODMOE_ASSIGN_OR_RETURN(runs.lru, Replay(trace, lru, slots));
  ODMOE_ASSIGN_OR_RETURN(runs.belady, Replay(trace, belady, slots));
  for (const std::string& name : options.policies) {
    ReplayReport::Run run;
    ODMOE_ASSIGN_OR_RETURN(run.policy, ParseReplayPolicy(name));
    if (run.policy == lru || run.policy == belady) {
      run.result = run.policy == lru ? runs.lru : runs.belady;
    } else {
      ODMOE_ASSIGN_OR_RETURN(run.result, Replay(trace, run.policy, slots));
    }
    runs.runs.push_back(std::move(run));
  }
  return runs;
}

absl::Status Run(const ReplayArguments& options, Console& console) {
  ReplayReport report;
  ODMOE_ASSIGN_OR_RETURN(report.trace, ReadRouteTrace(PosixFileSystem(), options.trace));
  for (const std::string& budget : options.budgets) {
    ODMOE_ASSIGN_OR_RETURN(auto runs, RunBudget(options, report.trace, budget));
    report.budgets.push_back(std::move(runs));
  }
  if (!options.svg.empty()) ODMOE_RETURN_IF_ERROR(WriteTextFile(options.svg, ReplaySvg(report)));
  if (options.output.json) {
    console.OutLine(DumpJson(ReplayJson(report)));
    return absl::OkStatus();
  }
  if (!options.output.quiet) console.Out(ReplayTitle(report) + "\n\n");
  console.Out(ReplayTable(report));
  if (!options.output.quiet && report.budgets.size() > 1) {
    console.Out("\n" + ReplayTextPlot(report));
  }
  return absl::OkStatus();
}

}  // namespace

void AddReplayCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<ReplayArguments>();
  CLI::App* command = app.add_subcommand(
      "replay", "What eviction policies would hit on recorded routing, without reading a model");
  command
      ->add_option("trace", options->trace,
                   "Routing as JSON lines; odmoe score and odmoe generate record it with --trace")
      ->required()
      ->type_name("TRACE");
  command
      ->add_option("--policy", options->policies,
                   "A policy to replay, or several; belady is the optimum that knows the future. "
                   "Without it, all")
      ->type_name("default|lru|lfu|lfru|next-use|belady")
      ->default_str("")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CheckedBy(ParseReplayPolicy));
  command
      ->add_option("--budget", options->budgets,
                   "Memory for experts, or several: a multiple of what one token demands, a share "
                   "of all experts, or a size. Without it, 0.5x to 8x")
      ->type_name("1.5x|25%|20GiB")
      ->default_str("")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CheckedBy(ParseReplayBudget));
  command->add_option("--svg", options->svg, "Write a plot of hit rates over budgets")
      ->type_name("FILE");
  AddOutputOptions(*command, options->output);
  command->footer(
      "The decoded tokens go through the store's own cache, from empty, with no disk. The way\n"
      "from LRU is the share it has of the hits that Belady's optimum has beyond LRU's.\n\n"
      "Examples:\n"
      "  odmoe replay chat.jsonl\n"
      "  odmoe replay chat.jsonl --policy default,lru --budget 0.9x,2x,25% --svg chat.svg\n"
      "  odmoe replay chat.jsonl --policy default --budget 1.5x --json\n"
      "      {..,\"accesses\":n,\"hits\":n,\"hit_rate\":x,\"bytes_read\":n,..}");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
