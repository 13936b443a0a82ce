// odmoe-gateway: OpenAI's HTTP API in front of an inference service.
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/time/clock.h"
#include "clients/cpp/remote_language_model.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/service_process.h"
#include "services/gateway/openai/gateway_server.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace odmoe {
namespace {

struct Flags {
  std::string listen = "127.0.0.1:0";
  std::string endpoint_file;
  std::string inference;
  std::string api_key_file;
  int max_running = 64;
  int max_waiting = 64;
  int drain_seconds = 30;
};

void AddOptions(CLI::App& app, Flags& flags) {
  app.add_option("--inference", flags.inference, "the inference service, HOST:PORT or unix:/path")
      ->required();
  app.add_option("--listen", flags.listen, "HOST:PORT; port 0: any free one")
      ->capture_default_str();
  app.add_option("--endpoint-file", flags.endpoint_file, "write the URL to this file");
  app.add_option("--api-key-file", flags.api_key_file,
                 "keys that clients must send, one a line; without it everybody may ask");
  app.add_option("--max-running", flags.max_running, "completions at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--max-waiting", flags.max_waiting, "completions that may wait; more get 429")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--drain-seconds", flags.drain_seconds, "patience with open requests at the end")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
}

absl::Status Serve(const Flags& flags, TerminationSignals& signals) {
  // Whichever model is loaded: the gateway need not know its name before it can start.
  ODMOE_ASSIGN_OR_RETURN(const auto model, ConnectLanguageModel(flags.inference, ""));
  GatewayOptions options;
  options.http.listen = flags.listen;
  options.model = model.get();
  options.max_running = flags.max_running;
  options.max_waiting = flags.max_waiting;
  if (!flags.api_key_file.empty()) {
    ODMOE_ASSIGN_OR_RETURN(options.keys, ApiKeys::ReadFile(flags.api_key_file));
  }
  ODMOE_ASSIGN_OR_RETURN(const auto server, GatewayServer::Start(std::move(options)));
  ODMOE_RETURN_IF_ERROR(AnnounceEndpoint(flags.endpoint_file, server->url()));
  spdlog::info("signal {}: draining; again to end at once", signals.Wait());
  server->Drain(absl::Now() + absl::Seconds(flags.drain_seconds));
  return absl::OkStatus();
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) {
  odmoe::TerminationSignals signals;
  spdlog::set_default_logger(spdlog::stderr_logger_mt("odmoe-gateway"));
  odmoe::Flags flags;
  CLI::App app("Serves OpenAI's HTTP API: /v1/completions, /v1/models, /health, /metrics.");
  odmoe::AddOptions(app, flags);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = odmoe::Serve(flags, signals);
  if (status.ok()) return 0;
  spdlog::error("{}", status.ToString());
  return 1;
}
