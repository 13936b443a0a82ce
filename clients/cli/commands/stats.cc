// odmoe stats: counters of expert-storage and inference services.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/console/table.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/remote_language_model.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

struct Options {
  std::vector<std::string> endpoints;
  std::string service = "auto";
  double watch_seconds = 0.0;  // 0: once
  OutputOptions output;
};

// One service's answer, ready to be shown either way.
struct Report {
  std::string title;
  Json json;
  std::vector<std::vector<std::string>> rows;
};

double Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0.0 : double(part) / double(whole);
}

std::string Percent(double share) { return absl::StrFormat("%.1f%%", 100.0 * share); }

Report StoreReport(const std::string& endpoint, const RemoteStoreStats& model) {
  const StoreStats& s = model.store;
  const double hit_rate = Share(s.hits, s.hits + s.misses);
  Report report;
  report.title = absl::StrCat("expert storage at ", endpoint, ": ", model.model);
  report.json = {{"endpoint", endpoint},
                 {"service", "expert_storage"},
                 {"model", model.model},
                 {"budget_bytes", s.budget_bytes},
                 {"slot_bytes", s.slot_bytes},
                 {"slot_count", s.slot_count},
                 {"resident_experts", s.resident_experts},
                 {"resident_bytes", s.resident_bytes},
                 {"pinned_experts", s.pinned_experts},
                 {"clients", s.clients},
                 {"hits", s.hits},
                 {"misses", s.misses},
                 {"hit_rate", hit_rate},
                 {"shared_misses", s.shared_misses},
                 {"evictions", s.evictions},
                 {"reads", s.reads},
                 {"bytes_read", s.bytes_read},
                 {"read_failures", s.read_failures},
                 {"checksum_failures", s.checksum_failures},
                 {"stall_ms", double(s.stall_ns) / 1e6},
                 {"prefetches", s.prefetches},
                 {"prefetch_reads", s.prefetch_reads},
                 {"prefetch_useful", s.prefetch_useful},
                 {"prefetch_wasted", s.prefetch_wasted},
                 {"prefetch_dropped", s.prefetch_dropped},
                 {"peak_rss_bytes", model.peak_rss_bytes},
                 {"uptime_seconds", absl::ToDoubleSeconds(model.uptime)}};
  report.rows = {
      {"budget", absl::StrFormat("%s, %d slots of %s", FormatBytes(s.budget_bytes), s.slot_count,
                                 FormatBytes(s.slot_bytes))},
      {"resident", absl::StrFormat("%d experts, %s; %d pinned", s.resident_experts,
                                   FormatBytes(s.resident_bytes), s.pinned_experts)},
      {"hit rate", absl::StrFormat("%s of %d", Percent(hit_rate), s.hits + s.misses)},
      {"read", absl::StrFormat("%s in %d reads; %d misses shared one", FormatBytes(s.bytes_read),
                               s.reads, s.shared_misses)},
      {"evictions", absl::StrCat(s.evictions)},
      {"stalled", ShortDuration(absl::Nanoseconds(s.stall_ns))},
      {"prefetch", absl::StrFormat("%d asked, %d read, %d useful, %d wasted, %d dropped",
                                   s.prefetches, s.prefetch_reads, s.prefetch_useful,
                                   s.prefetch_wasted, s.prefetch_dropped)},
      {"failures",
       absl::StrFormat("%d reads, %d checksums", s.read_failures, s.checksum_failures)},
      {"clients", absl::StrCat(s.clients)},
      {"peak memory", FormatBytes(model.peak_rss_bytes)},
      {"up", ShortDuration(model.uptime)}};
  return report;
}

Report InferenceReport(const std::string& endpoint, const InferenceStats& s) {
  Report report;
  report.title = absl::StrCat("inference at ", endpoint);
  report.json = {{"endpoint", endpoint},
                 {"service", "inference"},
                 {"requests_running", s.requests_running},
                 {"requests_waiting", s.requests_waiting},
                 {"requests", s.requests},
                 {"prompt_tokens", s.prompt_tokens},
                 {"completion_tokens", s.completion_tokens},
                 {"experts",
                  {{"hits", s.experts.hits},
                   {"misses", s.experts.misses},
                   {"hit_rate", s.experts.hit_rate()},
                   {"stall_ms", s.experts.stall_ms},
                   {"bytes_read", s.experts.bytes_read},
                   {"predicted", s.experts.predicted},
                   {"recall", s.experts.recall()}}},
                 {"peak_rss_bytes", s.peak_rss_bytes},
                 {"uptime_seconds", absl::ToDoubleSeconds(s.uptime)}};
  report.rows = {
      {"requests", absl::StrFormat("%d ended, %d running, %d waiting", s.requests,
                                   s.requests_running, s.requests_waiting)},
      {"tokens", absl::StrFormat("%d of prompts, %d generated", s.prompt_tokens,
                                 s.completion_tokens)},
      {"hit rate", absl::StrFormat("%s of %d", Percent(s.experts.hit_rate()),
                                   s.experts.hits + s.experts.misses)},
      {"read", FormatBytes(s.experts.bytes_read)},
      {"stalled", ShortDuration(absl::Milliseconds(s.experts.stall_ms))},
      {"prediction", absl::StrFormat("%d predicted, recall %s", s.experts.predicted,
                                     Percent(s.experts.recall()))},
      {"peak memory", FormatBytes(s.peak_rss_bytes)},
      {"up", ShortDuration(s.uptime)}};
  return report;
}

absl::StatusOr<std::vector<Report>> AskStore(const std::string& endpoint) {
  ODMOE_ASSIGN_OR_RETURN(const auto store, ExpertStorageAdmin::Connect(endpoint));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<RemoteModel> models, store->ListModels());
  std::vector<Report> reports;
  for (const RemoteModel& model : models) {
    ODMOE_ASSIGN_OR_RETURN(const RemoteStoreStats stats, store->Stats(model.name));
    reports.push_back(StoreReport(endpoint, stats));
  }
  if (reports.empty()) {
    reports.push_back({absl::StrCat("expert storage at ", endpoint, ": no model is open"),
                       Json{{"endpoint", endpoint}, {"service", "expert_storage"}}, {}});
  }
  return reports;
}

// Both kinds of service live at endpoints that look alike: the wrong one says UNIMPLEMENTED.
absl::StatusOr<std::vector<Report>> Ask(const std::string& endpoint, const std::string& service) {
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
  return std::vector<Report>{InferenceReport(endpoint, *stats)};
}

absl::StatusOr<std::vector<Report>> AskAll(const Options& options) {
  std::vector<Report> all;
  for (const std::string& endpoint : options.endpoints) {
    ODMOE_ASSIGN_OR_RETURN(std::vector<Report> reports, Ask(endpoint, options.service));
    for (Report& report : reports) all.push_back(std::move(report));
  }
  return all;
}

std::string Render(const std::vector<Report>& reports, bool json) {
  if (json) {
    Json services = Json::array();
    for (const Report& report : reports) services.push_back(report.json);
    return DumpJson(Json{{"services", std::move(services)}}) + "\n";
  }
  std::string text;
  for (const Report& report : reports) {
    Table table(std::vector<Table::Column>(2));
    for (const auto& row : report.rows) table.AddRow({"  " + row[0], row[1]});
    absl::StrAppend(&text, text.empty() ? "" : "\n", report.title, "\n", table.ToString());
  }
  return text;
}

absl::Status Run(const Options& options, Console& console) {
  if (options.endpoints.empty()) {
    return UsageError("give --endpoint (or set ODMOE_ENDPOINT): which services to ask");
  }
  absl::Notification interrupted;
  const SignalScope signals([&] { interrupted.Notify(); });
  while (true) {
    ODMOE_ASSIGN_OR_RETURN(const std::vector<Report> reports, AskAll(options));
    std::string text = Render(reports, options.output.json);
    const bool live = options.watch_seconds > 0.0;
    // Home and clear below: the table is redrawn in place.
    if (live && console.out_is_terminal() && !options.output.json) text = "\x1b[H\x1b[J" + text;
    console.Out(text);
    if (!live || !console.CheckOut().ok()) return absl::OkStatus();
    if (interrupted.WaitForNotificationWithTimeout(absl::Seconds(options.watch_seconds))) {
      return absl::CancelledError("interrupted");
    }
  }
}

}  // namespace

void AddStatsCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<Options>();
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
  command->add_option("--watch", options->watch_seconds, "Ask again each so many seconds")
      ->type_name("[SECONDS=1]")
      ->expected(0, 1)
      ->default_str("1")
      ->check(CLI::Range(0.05, 86400.0));
  AddOutputOptions(*command, options->output);
  command->footer(
      "Examples:\n"
      "  odmoe stats --endpoint 127.0.0.1:9001 --endpoint 127.0.0.1:9002\n"
      "  odmoe stats --endpoint 127.0.0.1:9001 --watch\n"
      "  odmoe stats --endpoint 127.0.0.1:9001 --json        {\"services\":[{..}]}");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
