#include "services/gateway/openai/gateway_server.h"

#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/thread_pool.h"
#include "services/core/http/metrics_server.h"
#include "services/gateway/openai/api_error.h"
#include "services/gateway/openai/completion_response.h"
#include "services/gateway/openai/completion_run.h"
#include "services/gateway/openai/gateway_metrics.h"

namespace odmoe {
namespace {

// For what is asked of the model besides completions: few threads, so that a model that does not
// answer holds up only its own probes.
constexpr int kControlThreads = 4;
constexpr int kMaxControlWaiting = 64;

constexpr absl::string_view kModelsPath = "/v1/models";
constexpr absl::string_view kCompletionsPath = "/v1/completions";

class OpenAiGateway : public GatewayServer {
 public:
  explicit OpenAiGateway(const GatewayOptions& options)
      : options_(options),
        created_(absl::ToUnixSeconds(absl::Now())),
        control_threads_(kControlThreads),
        completion_threads_(options.max_running) {}

  ~OpenAiGateway() override {
    if (server_ != nullptr && !draining_) Drain(absl::Now());
  }

  absl::Status Listen() {
    ODMOE_ASSIGN_OR_RETURN(
        server_, HttpServer::Start(
                     options_.http,
                     [this](std::shared_ptr<HttpExchange> exchange) { Route(std::move(exchange)); },
                     [](int status, const std::string& message) {
                       return ErrorResponse(status, message);
                     }));
    return absl::OkStatus();
  }

  int port() const override { return server_->port(); }
  std::string url() const override {
    const bool ipv6 = absl::StrContains(server_->host(), ':');
    return absl::StrCat("http://", ipv6 ? "[" : "", server_->host(), ipv6 ? "]" : "", ":", port());
  }

  void Drain(absl::Time deadline) override {
    draining_ = true;
    server_->Drain(deadline);
  }

 private:
  using Exchange = std::shared_ptr<HttpExchange>;

  // On the server's thread: decides and hands over.
  void Route(Exchange exchange) {
    const std::string& path = exchange->request().path;
    if (absl::StartsWith(path, "/v1/") &&
        !options_.keys.Allows(exchange->request().authorization)) {
      return Answer(exchange, "unauthorized",
                    ErrorResponse(absl::UnauthenticatedError("no valid API key was given")));
    }
    if (path == kCompletionsPath) {
      if (Allowed(exchange, "POST")) Admit(std::move(exchange));
    } else if (path == "/metrics") {
      if (Allowed(exchange, "GET")) Answer(exchange, path, Metrics());
    } else if (path == "/health") {
      if (Allowed(exchange, "GET")) AskModel(std::move(exchange), "/health");
    } else if (path == kModelsPath || absl::StartsWith(path, absl::StrCat(kModelsPath, "/"))) {
      if (Allowed(exchange, "GET")) AskModel(std::move(exchange), kModelsPath);
    } else {
      Answer(exchange, "other", ErrorResponse(absl::NotFoundError("no such path")));
    }
  }

  bool Allowed(const Exchange& exchange, absl::string_view method) {
    const std::string& given = exchange->request().method;
    if (given == method || (given == "HEAD" && method == "GET")) return true;
    HttpResponse response = ErrorResponse(405, absl::StrCat("expected ", method));
    response.headers.emplace_back("Allow", method == "GET" ? "GET, HEAD" : std::string(method));
    Answer(exchange, "other", response);
    return false;
  }

  void Answer(const Exchange& exchange, absl::string_view route, const HttpResponse& response) {
    metrics_.CountHttp(route, response.status);
    exchange->Send(response);
  }

  HttpResponse Metrics() {
    HttpResponse response;
    response.content_type = kMetricsContentType;
    response.body = metrics_.Serialize();
    return response;
  }

  // Completions: admitted up to the bounds, then run on a thread each.
  void Admit(Exchange exchange) {
    if (draining_) {
      return Answer(exchange, kCompletionsPath,
                    ErrorResponse(absl::UnavailableError("the server is shutting down")));
    }
    const int limit = options_.max_running + options_.max_waiting;
    if (admitted_.fetch_add(1) >= limit) {
      --admitted_;
      return Answer(exchange, kCompletionsPath,
                    ErrorResponse(absl::ResourceExhaustedError(
                        absl::StrCat(limit, " completions are under way already"))));
    }
    ShowRequests();
    completion_threads_.Schedule(
        [this, exchange = std::move(exchange), arrived = CompletionRun::Clock::now()] {
          ++running_;
          ShowRequests();
          CompletionRun run(*options_.model, metrics_, *exchange, arrived);
          metrics_.CountHttp(kCompletionsPath, run.Run());
          --running_;
          --admitted_;
          ShowRequests();
        });
  }

  void ShowRequests() {
    const int running = running_;
    metrics_.SetRequests(running, std::max(0, admitted_ - running));
  }

  // /health and /v1/models: what the model says of itself.
  void AskModel(Exchange exchange, absl::string_view route) {
    if (control_waiting_.fetch_add(1) >= kMaxControlWaiting) {
      --control_waiting_;
      return Answer(exchange, route,
                    ErrorResponse(absl::UnavailableError("the model does not answer")));
    }
    control_threads_.Schedule([this, exchange = std::move(exchange), route] {
      const absl::Cleanup leave = [this] { --control_waiting_; };
      if (exchange->cancellation().cancelled()) return;
      Answer(exchange, route, route == "/health" ? Health() : Models(exchange->request().path));
    });
  }

  HttpResponse Health() {
    if (draining_) return ErrorResponse(absl::UnavailableError("the server is shutting down"));
    const absl::StatusOr<ModelInfo> info = options_.model->Info();
    if (!info.ok()) {
      // Whatever is wrong with the model, this is a server that cannot serve.
      return ErrorResponse(absl::UnavailableError(info.status().message()));
    }
    HttpResponse response;
    response.body = nlohmann::json({{"status", "ok"}, {"model", info->name}}).dump();
    return response;
  }

  HttpResponse Models(absl::string_view path) {
    const absl::StatusOr<ModelInfo> info = options_.model->Info();
    if (!info.ok()) return ErrorResponse(info.status());
    HttpResponse response;
    if (path == kModelsPath) {
      response.body = ModelListJson(*info, created_);
      return response;
    }
    const absl::string_view name = absl::StripPrefix(path, absl::StrCat(kModelsPath, "/"));
    if (name != info->name) return ErrorResponse(ModelNotFound(name));
    response.body = ModelJson(*info, created_);
    return response;
  }

  const GatewayOptions options_;
  const int64_t created_;
  GatewayMetrics metrics_;
  std::atomic<bool> draining_ = false;
  std::atomic<int> admitted_ = 0;  // running and waiting
  std::atomic<int> running_ = 0;
  std::atomic<int> control_waiting_ = 0;
  // Its threads' tasks hold exchanges, which post to the server until they are gone: destroyed
  // last.
  std::unique_ptr<HttpServer> server_;
  ThreadPool control_threads_;
  ThreadPool completion_threads_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GatewayServer>> GatewayServer::Start(GatewayOptions options) {
  if (options.model == nullptr) return absl::InvalidArgumentError("the gateway has no model");
  if (options.max_running < 1 || options.max_waiting < 0) {
    return absl::InvalidArgumentError(absl::StrCat("max_running ", options.max_running,
                                                   " and max_waiting ", options.max_waiting,
                                                   ": expected at least 1 and 0"));
  }
  auto gateway = std::make_unique<OpenAiGateway>(options);
  ODMOE_RETURN_IF_ERROR(gateway->Listen());
  return gateway;
}

}  // namespace odmoe
