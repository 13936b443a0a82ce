// odmoe-expert-storage: serves a model's experts from a working set under a hard budget.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/remote_expert_source.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/model_path.h"
#include "services/core/http/metrics_server.h"
#include "services/core/io/service_process.h"
#include "services/core/rpc/server.h"
#include "services/expert_storage/service/expert_storage_service.h"
#include "services/expert_storage/service/store_host.h"
#include "services/expert_storage/service/store_metrics.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace odmoe {
namespace {

constexpr absl::Duration kDrain = absl::Seconds(5);
constexpr absl::Duration kProgress = absl::Seconds(2);

struct Flags {
  std::string listen = "127.0.0.1:0";
  std::string endpoint_file;
  std::string socket_dir;
  std::vector<std::string> roots;
  std::vector<std::string> models;
  std::string remote;
  std::string budget = "auto";
  std::string huge_pages = "auto";
  bool lock_memory = false;
  std::string source = "auto";
  std::vector<std::string> also;
  uint32_t io_depth = 0;
  std::string io_split;
  bool no_prefetch = false;
  std::string policy = "default";
  int compute_threads = 0;
  std::vector<std::string> tenants;
  bool tenants_only = false;
  std::string state_dir;
  double state_interval = 10.0;  // seconds
  bool no_shadow_policies = false;
  std::string metrics;
};

void AddServingOptions(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.listen,
                 "Address to serve: HOST:PORT (port 0: any free one) or unix:/path")
      ->capture_default_str();
  app.add_option("--endpoint-file", flags.endpoint_file,
                 "Write the address served to this file, once it serves");
  app.add_option("--root", flags.roots,
                 "Folder in which clients may open models; give it again for more");
  app.add_option("--model", flags.models,
                 "Model directory or GGUF file to open at the start; give it again for more, which "
                 "share the budget");
  app.add_option("--remote", flags.remote,
                 "Take the experts from the store at HOST:PORT on another host instead of from "
                 "files here: those of its model --model, or of its only one");
}

void AddMemoryOptions(CLI::App& app, Flags& flags) {
  app.add_option("--expert-budget", flags.budget,
                 "Memory for the experts of all models together, a hard bound: auto (what the "
                 "machine and its cgroup leave, minus a reserve), a share of all experts (25%), or "
                 "a size (1.5GiB)")
      ->capture_default_str();
  app.add_option("--huge-pages", flags.huge_pages,
                 "Map experts by huge pages: auto (where the kernel grants them), never, or always "
                 "(refuse to start without)")
      ->capture_default_str();
  app.add_flag("--lock-memory", flags.lock_memory,
               "Keep experts from being swapped out, where the system allows it (ulimit -l)");
}

void AddReadingOptions(CLI::App& app, Flags& flags) {
  app.add_option("--source", flags.source,
                 "How to read experts: direct (past the page cache), mmap, or auto")
      ->capture_default_str();
  app.add_option("--also", flags.also,
                 "Another directory that holds some of --model's files, or all, on another disk\n"
                 "say; experts are read where least is under way, and a copy that fails is\n"
                 "answered by another. Give it again for more")
      ->check(CLI::ExistingDirectory)
      ->allow_extra_args(false);
  app.add_option("--io-depth", flags.io_depth,
                 "Requests to a disk under way at once; measured at the start if not given")
      ->check(CLI::Range(1, 256));
  app.add_option("--io-split", flags.io_split,
                 "Largest of these requests, a multiple of 4 KiB (512KiB); measured if not given");
}

void AddClientOptions(CLI::App& app, Flags& flags) {
  app.add_option("--socket-dir", flags.socket_dir,
                 "Folder for the socket that shares the memory with clients on this host; a "
                 "private one in the temporary directory if not given");
  app.add_option("--compute-threads", flags.compute_threads,
                 "Threads that compute experts for hosts which have no memory for them "
                 "(--remote-experts there); 0: none")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--metrics", flags.metrics,
                 "Serve Prometheus metrics at http://HOST:PORT/metrics (port 0: any free one)")
      ->type_name("HOST:PORT");
}

void AddPolicyOptions(CLI::App& app, Flags& flags) {
  app.add_flag("--no-prefetch", flags.no_prefetch, "Never read an expert before it is demanded");
  app.add_option("--policy", flags.policy,
                 "What to evict: default (learns from routing), lru, lfu, lfru or next-use; "
                 "odmoe replay compares them")
      ->capture_default_str();
  app.add_flag("--no-shadow-policies", flags.no_shadow_policies,
               "Do not work out what the other policies would have hit");
  app.add_option("--tenant", flags.tenants,
                 "NAME[:cache=25%|SIZE][:disk=WEIGHT]: the most of the expert memory that clients "
                 "of this tenant may take, and their share of the disk against other tenants' "
                 "(1 if not given); again for more. 'default' is who names none");
  app.add_flag("--tenants-only", flags.tenants_only,
               "Refuse clients of tenants not given by --tenant; else they are the default's");
  app.add_option("--state-dir", flags.state_dir,
                 "Folder to keep the working set's list in, so that a store that starts again "
                 "reads it back in the background");
  app.add_option("--state-interval", flags.state_interval,
                 "Seconds between two savings of that list; it is also saved at the end")
      ->check(CLI::Range(0.01, 1e6))
      ->capture_default_str();
}

void Describe(CLI::App& app, Flags& flags) {
  app.description(
      "Serves the experts of a Mixture-of-Experts model to inference processes, from a working "
      "set\n"
      "in memory that never outgrows its budget. Processes on this host read it in place.\n\n"
      "Example: odmoe-expert-storage --model /models/kimi --expert-budget 25%");
  AddServingOptions(app, flags);
  AddMemoryOptions(app, flags);
  AddReadingOptions(app, flags);
  AddClientOptions(app, flags);
  AddPolicyOptions(app, flags);
}

absl::StatusOr<TenantTable> ReadTenants(const Flags& flags) {
  std::vector<TenantSpec> tenants;
  for (const std::string& text : flags.tenants) {
    ODMOE_ASSIGN_OR_RETURN(tenants.emplace_back(), ParseTenant(text));
  }
  return TenantTable::Create(tenants, flags.tenants_only);
}

void SayRestored(const HostedModel& model) {
  if (model.restart == nullptr) return;
  const absl::Status& status = model.restart->restore_status();
  if (status.ok()) {
    spdlog::info("reading back {} experts of the last working set", model.restart->restored());
  } else {
    spdlog::warn("starting cold: {}", std::string(status.message()));
  }
}

// Serves a working set of another store's experts.
absl::Status OpenRemoteModel(const Flags& flags, StoreHost& models) {
  if (!flags.also.empty() || flags.io_depth > 0 || !flags.io_split.empty()) {
    return absl::InvalidArgumentError(
        "--also, --io-depth and --io-split are for models of this host's files, not for --remote");
  }
  OpenStoreOptions options;
  ODMOE_ASSIGN_OR_RETURN(options.huge_pages, ParseHugePages(flags.huge_pages));
  options.lock_memory = flags.lock_memory;
  ODMOE_ASSIGN_OR_RETURN(options.tenants, ReadTenants(flags));
  ODMOE_ASSIGN_OR_RETURN(options.policy, ParseEvictionPolicy(flags.policy));
  options.prefetch = !flags.no_prefetch;
  options.use_memfd = true;
  options.shadow_policies = !flags.no_shadow_policies;
  ODMOE_ASSIGN_OR_RETURN(options.budget, ParseBudget(flags.budget));
  ODMOE_ASSIGN_OR_RETURN(const auto admin,
                         ExpertStorageAdmin::Connect(flags.remote, absl::Seconds(10)));
  if (flags.models.size() > 1) return absl::InvalidArgumentError("--remote is for one --model");
  const std::string wanted = flags.models.empty() ? "" : ModelNameOf(flags.models.front());
  ODMOE_ASSIGN_OR_RETURN(const auto description, admin->DescribeModel(wanted));
  const std::string& name = description.model.name;
  ODMOE_ASSIGN_OR_RETURN(auto source, ConnectRemoteSource(flags.remote, name));
  ODMOE_ASSIGN_OR_RETURN(auto store,
                         MakeExpertStore(std::move(source), options,
                                         std::max<uint64_t>(1, description.demand)));
  spdlog::info("serving {} of the store at {}: {} experts, {} slots of {}", name, flags.remote,
               store->catalog().expert_count(), store->arena().slot_count(),
               FormatBytes(store->arena().shape().slot_bytes));
  ODMOE_RETURN_IF_ERROR(models.Serve(name, std::move(store)));
  ODMOE_ASSIGN_OR_RETURN(const auto model, models.Find(name));
  SayRestored(*model);
  return absl::OkStatus();
}

// Taking the memory takes a second for some gigabytes: said every few, and at the end.
class PopulateProgress {
 public:
  void operator()(const std::string& model, uint64_t bytes, uint64_t of_bytes) {
    const absl::Time now = absl::Now();
    if (bytes < of_bytes && now < next_) return;
    next_ = now + kProgress;
    spdlog::info("{}: {} of {} of memory taken", model, FormatBytes(bytes), FormatBytes(of_bytes));
  }

 private:
  absl::Time next_ = absl::InfinitePast();
};

absl::StatusOr<SourceOptions> SourceOf(const Flags& flags) {
  SourceOptions source;
  ODMOE_ASSIGN_OR_RETURN(source.kind, ParseSourceKind(flags.source));
  if (!flags.also.empty() && flags.models.size() > 1) {
    return absl::InvalidArgumentError("--also is for one --model, not for several");
  }
  source.also = flags.also;
  if (flags.io_depth > 0) source.depth = flags.io_depth;
  if (!flags.io_split.empty()) {
    ODMOE_ASSIGN_OR_RETURN(source.request_bytes, ParseByteSize(flags.io_split));
  }
  return source;
}

void SayOpened(const Flags& flags, const HostedModel& model, const StoreStats& stats) {
  spdlog::info("opened {}: {} experts, {} slots of {}, {} by huge pages, {} locked, source {}",
               model.name, model.store->catalog().expert_count(), stats.slot_count,
               FormatBytes(stats.slot_bytes), FormatBytes(stats.huge_page_bytes),
               FormatBytes(stats.locked_bytes), std::string(SourceKindName(model.source)));
  const SourceStats source = model.store->source_stats();
  if (source.queue_depth > 0) {
    spdlog::info("{}: reads by {}, {} requests of {} under way, {}", model.name, source.reader,
                 source.queue_depth, FormatBytes(source.request_bytes),
                 source.measured_bytes_per_second > 0
                     ? absl::StrCat(FormatBytes(static_cast<uint64_t>(
                                        source.measured_bytes_per_second)), "/s when measured")
                     : "not measured");
  }
  if (flags.lock_memory && stats.locked_bytes == 0) {
    spdlog::warn("{}: its memory could not be locked: raise the limit (ulimit -l, LimitMEMLOCK)",
                 model.name);
  }
}

absl::Status OpenFirstModels(const Flags& flags, StoreHost& models) {
  if (!flags.remote.empty()) return OpenRemoteModel(flags, models);
  ODMOE_ASSIGN_OR_RETURN(const SourceOptions source, SourceOf(flags));
  for (const std::string& path : flags.models) {
    ODMOE_ASSIGN_OR_RETURN(const auto model, models.Open(path, Budget{}, source));
    ODMOE_ASSIGN_OR_RETURN(const StoreStats stats, model->store->Stats());
    SayOpened(flags, *model, stats);
    SayRestored(*model);
  }
  return absl::OkStatus();
}

absl::Status Serve(const Flags& flags, TerminationSignals& signals) {
  if (flags.roots.empty() && flags.models.empty() && flags.remote.empty()) {
    return absl::InvalidArgumentError(
        "nothing to serve: give --model MODEL, or --root FOLDER for clients to open models in, or "
        "--remote HOST:PORT");
  }
  StoreHost::Options options;
  options.roots = flags.roots;
  options.prefetch = !flags.no_prefetch;
  ODMOE_ASSIGN_OR_RETURN(options.policy, ParseEvictionPolicy(flags.policy));
  options.shadow_policies = !flags.no_shadow_policies;
  options.restart.directory = flags.state_dir;
  options.restart.period = absl::Seconds(flags.state_interval);
  ODMOE_ASSIGN_OR_RETURN(options.tenants, ReadTenants(flags));
  ODMOE_ASSIGN_OR_RETURN(options.total, ParseBudget(flags.budget));
  ODMOE_ASSIGN_OR_RETURN(options.huge_pages, ParseHugePages(flags.huge_pages));
  options.lock_memory = flags.lock_memory;
  options.populated = PopulateProgress();
  StoreHost models(std::move(options));
  {
    // Memory for a large budget takes minutes; until it serves there is nothing to end in order.
    const TerminationSignals::AtOnce at_once(signals);
    ODMOE_RETURN_IF_ERROR(OpenFirstModels(flags, models));
  }
  ExpertStorageServiceOptions service_options;
  service_options.socket_directory = flags.socket_dir;
  service_options.compute_threads = flags.compute_threads;
  ODMOE_ASSIGN_OR_RETURN(const auto service, ExpertStorageServer::Create(models, service_options));
  RpcServerOptions server_options;
  server_options.listen = flags.listen;
  server_options.services = {service->service()};
  server_options.service_names = {ExpertStorageServer::Name()};
  ODMOE_ASSIGN_OR_RETURN(const auto server, RpcServer::Start(server_options));
  std::unique_ptr<MetricsServer> metrics;
  if (!flags.metrics.empty()) {
    ODMOE_ASSIGN_OR_RETURN(metrics, MetricsServer::Start(flags.metrics, [&models] {
                             return CollectStoreMetrics(models);
                           }));
    spdlog::info("metrics at {}", metrics->url());
  }
  ODMOE_RETURN_IF_ERROR(AnnounceEndpoint(flags.endpoint_file, server->address()));
  spdlog::info("signal {}: draining; again to end at once", signals.Wait());
  server->SetServing(false);
  service->Drain();
  server->Shutdown(absl::Now() + kDrain);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app;
  Flags flags;
  Describe(app, flags);
  CLI11_PARSE(app, argc, argv);
  TerminationSignals signals;
  spdlog::set_default_logger(spdlog::stderr_logger_mt("expert-storage"));
  const absl::Status status = Serve(flags, signals);
  if (status.ok()) return EXIT_SUCCESS;
  std::cerr << "odmoe-expert-storage: " << status.message() << "\n";
  return EXIT_FAILURE;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) { return odmoe::Main(argc, argv); }
