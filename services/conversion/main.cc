// odmoe-conversion: serves a job queue on this host's files.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "services/conversion/jobs/local_job_queue.h"
#include "services/conversion/service/conversion_service.h"
#include "grpcpp/impl/service_type.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/service_process.h"
#include "services/core/rpc/server.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace {

struct Flags {
  std::string listen = "127.0.0.1:0";
  std::string endpoint_file;
  int drain_seconds = 10;
  odmoe::LocalJobQueueOptions queue;
};

absl::Status Serve(const Flags& flags, odmoe::TerminationSignals& signals) {
  ODMOE_ASSIGN_OR_RETURN(auto queue, odmoe::OpenLocalJobQueue(flags.queue));
  const auto service = odmoe::MakeConversionService(*queue);
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
                 "a folder jobs may read and write; repeatable, at least one")
      ->required();
  app.add_option("--workers", flags.queue.workers, "jobs at once")->capture_default_str();
  app.add_option("--drain-seconds", flags.drain_seconds, "patience with open calls at the end")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const absl::Status status = Serve(flags, signals);
  if (status.ok()) return 0;
  spdlog::error("{}", status.ToString());
  return 1;
}
