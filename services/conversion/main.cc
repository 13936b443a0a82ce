// odmoe-conversion: serves a job queue on this host's files.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "grpcpp/impl/service_type.h"
#include "services/conversion/jobs/local_job_queue.h"
#include "services/conversion/service/conversion_service.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/service_process.h"
#include "services/core/rpc/server.h"
#include "services/expert_storage/open_expert_store.h"
#include "services/inference/engine/local_language_model.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace {

struct Flags {
  std::string listen = "127.0.0.1:0";
  std::string endpoint_file;
  int drain_seconds = 10;
  int64_t keep_days = 30;
  std::string spool;
  std::string spool_quota;
  int64_t spool_days = 7;
  odmoe::LocalJobQueueOptions queue;
};

// A model to be evaluated by a job: experts under a budget of what memory is left.
absl::StatusOr<std::shared_ptr<odmoe::LanguageModel>> OpenModel(const std::string& directory) {
  odmoe::OpenStoreOptions store;
  store.model_directory = directory;
  ODMOE_ASSIGN_OR_RETURN(store.budget, odmoe::ParseBudget("auto"));
  odmoe::LocalModelOptions model;
  model.model_directory = directory;
  ODMOE_ASSIGN_OR_RETURN(model.experts, odmoe::OpenExpertStore(store));
  return odmoe::OpenLocalLanguageModel(std::move(model));
}

// Removes uploads that nobody needs any more, at the start and every hour.
class SpoolCleaner {
 public:
  explicit SpoolCleaner(odmoe::Spool& spool) : thread_([this, &spool] {
      do {
        if (const absl::Status status = spool.Expire(absl::Now()); !status.ok()) {
          spdlog::warn("old uploads: {}", status.ToString());
        }
      } while (!stop_.WaitForNotificationWithTimeout(absl::Hours(1)));
    }) {}
  ~SpoolCleaner() {
    stop_.Notify();
    thread_.join();
  }

 private:
  absl::Notification stop_;
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<odmoe::Spool>> OpenSpool(
    const Flags& flags, std::unique_ptr<odmoe::HostedJobQueue>& queue) {
  odmoe::SpoolOptions options;
  options.directory = flags.spool;
  if (!flags.spool_quota.empty()) {
    ODMOE_ASSIGN_OR_RETURN(const odmoe::Budget quota, odmoe::ParseBudget(flags.spool_quota));
    if (quota.kind != odmoe::Budget::Kind::kBytes) {
      return absl::InvalidArgumentError("--spool-quota is not a size, as 200GiB");
    }
    options.quota_bytes = quota.bytes;
  }
  options.keep = absl::Hours(24) * flags.spool_days;
  options.in_use = [&queue](const std::string& directory) { return queue->UsesBelow(directory); };
  return odmoe::Spool::Open(std::move(options));
}

absl::Status Serve(Flags& flags, odmoe::TerminationSignals& signals) {
  std::unique_ptr<odmoe::HostedJobQueue> queue;
  std::unique_ptr<odmoe::Spool> spool;
  if (!flags.spool.empty()) {
    ODMOE_ASSIGN_OR_RETURN(spool, OpenSpool(flags, queue));
    flags.queue.roots.push_back(flags.spool);  // jobs find uploads there
  }
  if (flags.queue.roots.empty()) return absl::InvalidArgumentError("give --root or --spool");
  ODMOE_ASSIGN_OR_RETURN(queue, odmoe::OpenLocalJobQueue(flags.queue));
  odmoe::ConversionServiceOptions service_options;
  ODMOE_ASSIGN_OR_RETURN(service_options.roots, odmoe::PathRoots::Create(flags.queue.roots));
  service_options.spool = spool.get();
  const auto service = odmoe::MakeConversionService(*queue, std::move(service_options));
  const auto cleaner =
      spool == nullptr ? nullptr : std::make_unique<SpoolCleaner>(*spool);
  odmoe::RpcServerOptions options;
  options.listen = flags.listen;
  options.services = {service.get()};
  options.service_names = {odmoe::ConversionServiceName()};
  ODMOE_ASSIGN_OR_RETURN(auto server, odmoe::RpcServer::Start(options));
  ODMOE_RETURN_IF_ERROR(odmoe::AnnounceEndpoint(flags.endpoint_file, server->address()));
  spdlog::info("signal {}: draining; again to end at once", signals.Wait());
  server->Shutdown(absl::Now() + absl::Seconds(flags.drain_seconds));
  if (!flags.endpoint_file.empty()) unlink(flags.endpoint_file.c_str());
  return absl::OkStatus();  // the queue's end puts running jobs back to be run again
}

}  // namespace

int main(int argc, char** argv) {
  odmoe::TerminationSignals signals;
  spdlog::set_default_logger(spdlog::stderr_logger_mt("odmoe-conversion"));

  Flags flags;
  CLI::App app("Serves jobs that convert model files on this host.");
  app.add_option("--listen", flags.listen, "HOST:PORT (port 0: any free one) or unix:/path")
      ->capture_default_str();
  app.add_option("--endpoint-file", flags.endpoint_file, "write the endpoint to this file");
  app.add_option("--database", flags.queue.database_path, "the jobs' SQLite file")->required();
  app.add_option("--root", flags.queue.roots,
                 "a folder jobs may read and write and clients fetch from; repeatable");
  auto* spool = app.add_option("--spool", flags.spool,
                               "a folder for files that clients send; without it none are taken");
  app.add_option("--spool-quota", flags.spool_quota,
                 "how much uploads may take, as 200GiB [the disk]")
      ->needs(spool);
  app.add_option("--spool-days", flags.spool_days, "days to keep an upload after its last use")
      ->check(CLI::Range(0, 36500))
      ->needs(spool)
      ->capture_default_str();
  app.add_option("--workers", flags.queue.workers, "jobs at once")->capture_default_str();
  app.add_option("--keep-jobs", flags.queue.retention.jobs, "ended jobs to remember, the newest")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app.add_option("--keep-days", flags.keep_days, "days to remember an ended job")
      ->check(CLI::Range(0, 36500))
      ->capture_default_str();
  app.add_option("--drain-seconds", flags.drain_seconds, "patience with open calls at the end")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  flags.queue.retention.age = absl::Hours(24) * flags.keep_days;
  flags.queue.open_model = OpenModel;
  const absl::Status status = Serve(flags, signals);
  if (status.ok()) return 0;
  spdlog::error("{}", status.ToString());
  return 1;
}
