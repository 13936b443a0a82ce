// odmoe serve MODEL: store, inference and HTTP gateway in this process.
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/json_output.h"
#include "clients/cli/model/model_options.h"
#include "services/core/base/status_macros.h"
#include "services/gateway/openai/gateway_server.h"

namespace odmoe {
namespace {

struct ServeArguments {
  ModelOptions model;
  std::string listen = "127.0.0.1:8080";
  int drain_seconds = 30;
  OutputOptions output;
};

void Announce(const std::string& url, const std::string& model, const ServeArguments& options,
              Console& console) {
  // The same line as the services', for programs that wait for it.
  console.OutLine(absl::StrCat("listening on ", url));
  if (options.output.quiet) return;
  console.ErrLine(absl::StrCat("serving ", model, "; try:\n  curl ", url,
                               "/v1/completions -H 'Content-Type: application/json' \\\n"
                               "    -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 64}'\n"
                               "Ctrl-C to stop"));
}

absl::Status Run(const ServeArguments& options, Console& console) {
  absl::Notification stop;
  const SignalScope signals([&] { stop.Notify(); });
  ODMOE_ASSIGN_OR_RETURN(const OpenedModel opened, OpenModel(options.model));
  if (!opened.warning.empty()) console.ErrLine("odmoe: " + opened.warning);
  ODMOE_ASSIGN_OR_RETURN(const ModelInfo info, opened.model->Info());
  GatewayOptions gateway_options;
  gateway_options.http.listen = options.listen;
  gateway_options.model = opened.model.get();
  ODMOE_ASSIGN_OR_RETURN(const auto gateway, GatewayServer::Start(std::move(gateway_options)));
  Announce(gateway->url(), info.name, options, console);
  stop.WaitForNotification();
  if (!options.output.quiet) {
    console.ErrLine("finishing the requests under way; Ctrl-C again ends at once");
  }
  gateway->Drain(absl::Now() + absl::Seconds(options.drain_seconds));
  return absl::OkStatus();
}

}  // namespace

void AddServeCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<ServeArguments>();
  CLI::App* command = app.add_subcommand(
      "serve", "Serve a model by OpenAI's HTTP API, all in this process");
  AddLocalModelOptions(*command, options->model);
  command->add_option("--listen", options->listen, "Where to listen; port 0: any free one")
      ->type_name("HOST:PORT");
  command
      ->add_option("--drain-seconds", options->drain_seconds,
                   "How long requests may go on after SIGINT or SIGTERM")
      ->type_name("SECONDS")
      ->check(CLI::Range(0, 86400));
  command->add_flag("-q,--quiet", options->output.quiet, "Print the endpoint only");
  command->footer(
      "Serves /v1/completions, /v1/models, /health and /metrics. Writes \"listening on URL\" to\n"
      "standard output when it is ready; ends with exit code 0 on SIGINT or SIGTERM.\n"
      "Examples:\n"
      "  odmoe serve kimi --expert-budget 25%\n"
      "  odmoe serve kimi --listen 127.0.0.1:0 --source direct");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
