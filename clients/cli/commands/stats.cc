// odmoe stats: counters of expert-storage and inference services.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/console/table.h"
#include "clients/cli/console/terminal_screen.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "clients/cli/stats/live_stats.h"
#include "clients/cli/stats/stats_report.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/remote_language_model.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// A service is not said to be silent before.
constexpr absl::Duration kSilence = absl::Seconds(3);

struct StatsArguments {
  std::vector<std::string> endpoints;
  std::string service = "auto";
  double watch_seconds = 0.0;  // 0: not given
  bool once = false;
  OutputOptions output;
};

absl::StatusOr<std::vector<StatsReport>> AskStore(const std::string& endpoint) {
  ODMOE_ASSIGN_OR_RETURN(const auto store, ExpertStorageAdmin::Connect(endpoint));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<RemoteModel> models, store->ListModels());
  std::vector<StatsReport> reports;
  for (const RemoteModel& model : models) {
    const auto stats = store->Stats(model.name, true);
    if (absl::IsNotFound(stats.status())) continue;  // closed meanwhile
    ODMOE_RETURN_IF_ERROR(stats.status());
    reports.push_back(StoreReport(endpoint, *stats));
  }
  if (reports.empty()) {
    reports.push_back({absl::StrCat("expert storage at ", endpoint, ": no model is open"),
                       Json{{"endpoint", endpoint}, {"service", "expert_storage"}}, {}});
  }
  return reports;
}

// Both kinds of service live at endpoints that look alike: the wrong one says UNIMPLEMENTED.
absl::StatusOr<std::vector<StatsReport>> Ask(const std::string& endpoint,
                                             const std::string& service) {
  if (service != "inference") {
    auto reports = AskStore(endpoint);
    if (service == "storage" || !absl::IsUnimplemented(reports.status())) return reports;
  }
  const auto stats = GetInferenceStats(endpoint);
  if (absl::IsUnimplemented(stats.status())) {
    return absl::InvalidArgumentError(absl::StrCat(
        endpoint, " is neither an expert-storage nor an inference service"));
  }
  ODMOE_RETURN_IF_ERROR(stats.status());
  return std::vector<StatsReport>{InferenceReport(endpoint, *stats)};
}

absl::StatusOr<std::vector<StatsReport>> AskAll(const StatsArguments& options) {
  std::vector<StatsReport> all;
  for (const std::string& endpoint : options.endpoints) {
    ODMOE_ASSIGN_OR_RETURN(std::vector<StatsReport> reports, Ask(endpoint, options.service));
    for (StatsReport& report : reports) all.push_back(std::move(report));
  }
  return all;
}

std::string Render(const std::vector<StatsReport>& reports, bool json) {
  if (json) {
    Json services = Json::array();
    for (const StatsReport& report : reports) services.push_back(report.json);
    return DumpJson(Json{{"services", std::move(services)}}) + "\n";
  }
  std::string text;
  for (const StatsReport& report : reports) {
    Table table(std::vector<Table::Column>(2));
    for (const auto& row : report.rows) table.AddRow({"  " + row[0], row[1]});
    absl::StrAppend(&text, text.empty() ? "" : "\n", report.title, "\n", table.ToString());
  }
  return text;
}

// One page a model, until q or Ctrl-C, which leave the terminal as it was.
absl::Status RunLive(const StatsArguments& options) {
  std::unique_ptr<TerminalScreen> screen;
  std::atomic<TerminalScreen*> shown{nullptr};
  absl::Notification interrupted;
  const SignalScope signals([&] {
    interrupted.Notify();
    if (TerminalScreen* taken = shown.load()) taken->Wake();
  });
  ODMOE_ASSIGN_OR_RETURN(screen, TerminalScreen::Open());
  shown = screen.get();
  const auto interval = absl::Seconds(options.watch_seconds > 0.0 ? options.watch_seconds : 1.0);
  const ServiceKind kind = options.service == "storage"     ? ServiceKind::kStorage
                           : options.service == "inference" ? ServiceKind::kInference
                                                            : ServiceKind::kAuto;
  LiveStats live({TerminalScreen::HasColours(), TerminalScreen::HasUtf8()},
                 std::max(3 * interval, kSilence));
  const StatsFeed feed(options.endpoints, kind, std::min(interval, absl::Hours(1)),
                       [&] { screen->Wake(); });
  while (!interrupted.HasBeenNotified()) {
    live.Add(feed.Latest());
    const TerminalSize size = screen->size();
    if (!screen->Draw(live.Render(size.rows, size.columns, absl::Now()))) break;
    if (live.OnKey(screen->Wait(absl::Now() + interval))) continue;
    screen->GiveBack();
    return absl::OkStatus();
  }
  // Before the services are let go, which may take a while: a second Ctrl-C then ends at once.
  screen->GiveBack();
  return absl::CancelledError("interrupted");
}

absl::Status Run(const StatsArguments& options, Console& console) {
  if (options.endpoints.empty()) {
    return UsageError("give --endpoint (or set ODMOE_ENDPOINT): which services to ask");
  }
  if (console.out_is_terminal() && TerminalScreen::Possible() && !options.once &&
      !options.output.json) {
    return RunLive(options);
  }
  absl::Notification interrupted;
  const SignalScope signals([&] { interrupted.Notify(); });
  while (true) {
    ODMOE_ASSIGN_OR_RETURN(const std::vector<StatsReport> reports, AskAll(options));
    const std::string text = Render(reports, options.output.json);
    console.Out(text);
    if (options.watch_seconds <= 0.0 || !console.CheckOut().ok()) return absl::OkStatus();
    if (interrupted.WaitForNotificationWithTimeout(absl::Seconds(options.watch_seconds))) {
      return absl::CancelledError("interrupted");
    }
  }
}

}  // namespace

void AddStatsCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<StatsArguments>();
  CLI::App* command =
      app.add_subcommand("stats", "Counters of expert-storage and inference services");
  command->add_option("--endpoint", options->endpoints, "A service to ask; may be repeated")
      ->type_name("HOST:PORT|unix:PATH")
      ->envname("ODMOE_ENDPOINT")
      ->default_str("")
      ->allow_extra_args(false);
  command->add_option("--service", options->service, "What the endpoints are; auto asks them")
      ->type_name("auto|storage|inference")
      ->check(CLI::IsMember({"auto", "storage", "inference"}));
  CLI::Option* watch =
      command->add_option("--watch", options->watch_seconds, "Ask again each so many seconds")
          ->type_name("[SECONDS=1]")
          ->expected(0, 1)
          ->default_str("1")
          ->check(CLI::Range(0.05, 86400.0));
  command->add_flag("--once", options->once, "Print the counters and end, on a terminal too")
      ->excludes(watch);
  AddOutputOptions(*command, options->output);
  command->footer(
      "On a terminal a live view: rates, hit rate over time, queues, tenants, clients, and a heat\n"
      "map of layers x experts. tab, n, p, 1-9: the next, last or that model or service; r: heat\n"
      "from now on; q or Ctrl-C: end. In a pipe, on a dumb terminal, with --json or --once: the\n"
      "counters, once.\n"
      "Examples:\n"
      "  odmoe stats --endpoint 127.0.0.1:9001 --endpoint 127.0.0.1:9002\n"
      "  odmoe stats --endpoint 127.0.0.1:9001 --watch\n"
      "  odmoe stats --endpoint 127.0.0.1:9001 --json        {\"services\":[{..}]}");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
