// odmoe-inference: serves a language model whose experts an expert store holds.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/remote_expert_executor.h"
#include "clients/cpp/remote_expert_source.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "grpcpp/impl/service_type.h"
#include "services/core/base/status_macros.h"
#include "services/core/experts/no_expert_store.h"
#include "services/core/formats/model_directory.h"
#include "services/core/formats/model_path.h"
#include "services/core/http/metrics_server.h"
#include "services/core/io/service_process.h"
#include "services/core/rpc/server.h"
#include "services/expert_storage/open_expert_store.h"
#include "services/inference/engine/local_language_model.h"
#include "services/inference/service/inference_service.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace {

struct Flags {
  std::string listen = "127.0.0.1:0";
  std::string endpoint_file;
  std::string expert_store;
  std::string tenant;
  std::string remote_expert_store;
  std::string remote_experts;
  std::string remote_mode = "auto";
  std::string expert_budget = "auto";
  std::vector<std::string> roots;
  std::string model;
  int context_length = 0;
  int threads = 0;
  bool no_prefetch = false;
  int max_waiting = 64;
  int drain_seconds = 30;
  std::string metrics;
};

// Requests that run at once; the engine lets in as many as its memory allows.
constexpr int kMaxRunning = 32;

absl::StatusOr<std::shared_ptr<odmoe::ExpertStore>> OpenExperts(const Flags& flags,
                                                               const std::string& path) {
  const std::string name = odmoe::ModelNameOf(path);
  if (!flags.expert_store.empty()) {
    return odmoe::ConnectSharedMemoryStore(flags.expert_store, name, flags.tenant);
  }
  const std::string& remote =
      flags.remote_experts.empty() ? flags.remote_expert_store : flags.remote_experts;
  if (remote.empty()) {
    return absl::FailedPreconditionError(
        "the model has experts, and this service was started without --expert-store, "
        "--remote-expert-store or --remote-experts");
  }
  odmoe::OpenStoreOptions store;
  store.model_directory = path;
  store.prefetch = !flags.no_prefetch;
  ODMOE_ASSIGN_OR_RETURN(store.budget, odmoe::ParseBudget(flags.expert_budget));
  ODMOE_ASSIGN_OR_RETURN(auto source, odmoe::ConnectRemoteSource(remote, name));
  ODMOE_ASSIGN_OR_RETURN(const uint64_t demand, odmoe::ReadDemand(path));
  return odmoe::MakeExpertStore(std::move(source), store, demand);
}

absl::Status ConnectSecondHost(const Flags& flags, odmoe::LocalModelOptions& options) {
  if (flags.remote_experts.empty() || options.experts->catalog().expert_count() == 0) {
    return absl::OkStatus();
  }
  std::string warning;
  ODMOE_ASSIGN_OR_RETURN(options.remote_mode, odmoe::ParseRemoteMode(flags.remote_mode));
  ODMOE_ASSIGN_OR_RETURN(
      options.remote_experts,
      odmoe::ConnectRemoteExecutor(flags.remote_experts,
                                   odmoe::ModelNameOf(options.model_directory),
                                   options.remote_mode, warning));
  if (!warning.empty()) spdlog::warn("{}", warning);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<odmoe::LanguageModel>> OpenModel(const Flags& flags,
                                                               const std::string& path,
                                                               int32_t context_length) {
  ODMOE_ASSIGN_OR_RETURN(auto dense, odmoe::ReadDenseRegistry(path));
  auto experts = dense.has_value() ? odmoe::MakeNoExpertStore(std::move(dense->catalog))
                                   : OpenExperts(flags, path);
  if (absl::IsNotFound(experts.status()) && std::filesystem::exists(path)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the expert store does not have the model open: ",
                     experts.status().message()));
  }
  ODMOE_RETURN_IF_ERROR(experts.status());
  odmoe::LocalModelOptions options;
  options.model_directory = path;
  options.experts = *std::move(experts);
  options.threads = flags.threads;
  options.context_length = context_length;
  options.prefetch = !flags.no_prefetch;
  options.max_waiting = flags.max_waiting;
  ODMOE_RETURN_IF_ERROR(ConnectSecondHost(flags, options));
  return odmoe::OpenLocalLanguageModel(std::move(options));
}

absl::Status CheckFlags(const Flags& flags) {
  const bool own = !flags.remote_expert_store.empty() ||
                   (!flags.remote_experts.empty() && flags.expert_store.empty());
  if (own || flags.expert_budget == "auto") return absl::OkStatus();
  return absl::InvalidArgumentError(
      "--expert-budget is for a working set of our own: give it with --remote-expert-store or "
      "--remote-experts; that of --expert-store is given where the model is opened");
}

absl::Status Serve(const Flags& flags, odmoe::TerminationSignals& signals) {
  ODMOE_RETURN_IF_ERROR(CheckFlags(flags));
  odmoe::InferenceServiceOptions options;
  options.open_model = [&flags](const std::string& path, int32_t context_length) {
    return OpenModel(flags, path, context_length);
  };
  options.roots = flags.roots;
  options.max_calls = kMaxRunning + flags.max_waiting;
  ODMOE_ASSIGN_OR_RETURN(const auto service, odmoe::InferenceService::Create(std::move(options)));
  if (!flags.model.empty()) {
    const std::string path = std::filesystem::absolute(flags.model);
    const odmoe::TerminationSignals::AtOnce at_once(signals);
    ODMOE_RETURN_IF_ERROR(service->LoadModel(path, flags.context_length).status());
  }
  odmoe::RpcServerOptions server_options;
  server_options.listen = flags.listen;
  server_options.services = {service->grpc_service()};
  server_options.service_names = {odmoe::InferenceService::Name()};
  ODMOE_ASSIGN_OR_RETURN(const auto server, odmoe::RpcServer::Start(server_options));
  std::unique_ptr<odmoe::MetricsServer> metrics;
  if (!flags.metrics.empty()) {
    ODMOE_ASSIGN_OR_RETURN(metrics, odmoe::MetricsServer::Start(flags.metrics, [&service] {
                             return service->MetricsText();
                           }));
    spdlog::info("metrics at {}", metrics->url());
  }
  service->ObserveReadiness([&server](bool ready) { server->SetServing(ready); });
  ODMOE_RETURN_IF_ERROR(odmoe::AnnounceEndpoint(flags.endpoint_file, server->address()));

  spdlog::info("signal {}: draining; again to end at once", signals.Wait());
  service->StopAdmission();
  server->Shutdown(absl::Now() + absl::Seconds(flags.drain_seconds));
  service->ObserveReadiness(nullptr);
  return absl::OkStatus();
}

void AddOptions(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.listen, "HOST:PORT (port 0: any free one) or unix:/path")
      ->capture_default_str();
  app.add_option("--endpoint-file", flags.endpoint_file, "write the endpoint to this file");
  auto* stores =
      app.add_option_group("experts", "where experts come from; a dense model has none");
  auto* shared =
      stores->add_option("--expert-store", flags.expert_store,
                         "an expert-storage service on this host, read through shared memory");
  app.add_option("--tenant", flags.tenant,
                 "on whose account it serves, by the tenants it was started with")
      ->needs(shared);
  auto* remote = stores->add_option("--remote-expert-store", flags.remote_expert_store,
                                    "one on another host, read through a working set of our own");
  stores->require_option(0, 1);
  auto* helper =
      app.add_option("--remote-experts", flags.remote_experts,
                     "one on another host that helps with experts which are not resident here: a "
                     "working set of our own, unless --expert-store names one, and what it lacks "
                     "from there, or computed there");
  helper->excludes(remote);
  app.add_option("--remote-mode", flags.remote_mode,
                 "fetch those experts, execute them there (it needs --compute-threads), or auto: "
                 "whichever has cost less; the output is the same")
      ->needs(helper)
      ->check(CLI::IsMember({"fetch", "execute", "auto"}))
      ->capture_default_str();
  app.add_option("--expert-budget", flags.expert_budget,
                 "memory for a working set of our own: 25%, 1.5GiB or auto")
      ->capture_default_str();
  app.add_option("--root", flags.roots, "a folder models may lie in; repeatable, at least one")
      ->required();
  app.add_option("--model", flags.model,
                 "a model directory or GGUF file below a root, to load at the start");
  app.add_option("--context", flags.context_length,
                 "tokens of prompt and continuation, for --model; 0: as trained")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "0: as many as the process may run on")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_flag("--no-prefetch", flags.no_prefetch, "ask for no experts ahead of need");
  app.add_option("--max-waiting", flags.max_waiting, "requests that may wait; more are refused")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--metrics", flags.metrics,
                 "serve Prometheus metrics at http://HOST:PORT/metrics (port 0: any free one)")
      ->type_name("HOST:PORT");
  app.add_option("--drain-seconds", flags.drain_seconds, "patience with open calls at the end")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  odmoe::TerminationSignals signals;
  spdlog::set_default_logger(spdlog::stderr_logger_mt("odmoe-inference"));

  Flags flags;
  CLI::App app("Serves a language model: generation, scoring, tokenizing.");
  AddOptions(app, flags);
  CLI11_PARSE(app, argc, argv);

  const absl::Status status = Serve(flags, signals);
  if (status.ok()) return 0;
  spdlog::error("{}", status.ToString());
  return 1;
}
