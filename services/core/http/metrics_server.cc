#include "services/core/http/metrics_server.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/thread_pool.h"
#include "services/core/http/http_server.h"

namespace odmoe {
namespace {

constexpr char kPath[] = "/metrics";

HttpResponse PlainText(int status, std::string text) {
  HttpResponse response;
  response.status = status;
  response.content_type = kMetricsContentType;
  response.body = std::move(text);
  return response;
}

HttpServerOptions Bounds(const std::string& listen) {
  HttpServerOptions options;
  options.listen = listen;
  options.max_connections = 64;
  options.max_body_bytes = 0;
  return options;
}

class CollectingServer : public MetricsServer {
 public:
  explicit CollectingServer(Collect collect) : collect_(std::move(collect)) {}

  ~CollectingServer() override {
    if (server_ != nullptr) server_->Drain(absl::Now());
    thread_.reset();  // what is being collected for clients that are gone
  }

  absl::Status Listen(const std::string& listen) {
    ODMOE_ASSIGN_OR_RETURN(server_, HttpServer::Start(
                                        Bounds(listen),
                                        [this](std::shared_ptr<HttpExchange> exchange) {
                                          Answer(std::move(exchange));
                                        },
                                        [](int status, const std::string& message) {
                                          return PlainText(status, message + "\n");
                                        }));
    const std::string& host = server_->host();
    const bool version6 = absl::StrContains(host, ':');
    url_ = absl::StrCat("http://", version6 ? "[" : "", host, version6 ? "]" : "", ":",
                        server_->port(), kPath);
    return absl::OkStatus();
  }

  const std::string& url() const override { return url_; }

 private:
  void Answer(std::shared_ptr<HttpExchange> exchange) {
    const HttpRequest& request = exchange->request();
    if (request.path != kPath) {
      exchange->Send(PlainText(404, absl::StrCat("only ", kPath, " is served here\n")));
    } else if (request.method != "GET" && request.method != "HEAD") {
      HttpResponse response = PlainText(405, "only GET is served here\n");
      response.headers = {{"Allow", "GET, HEAD"}};
      exchange->Send(response);
    } else {
      thread_->Schedule([this, exchange = std::move(exchange)] {
        if (!exchange->cancellation().cancelled()) exchange->Send(PlainText(200, collect_()));
      });
    }
  }

  const Collect collect_;
  std::unique_ptr<ThreadPool> thread_ = std::make_unique<ThreadPool>(1);
  std::unique_ptr<HttpServer> server_;
  std::string url_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& listen,
                                                                    Collect collect) {
  auto server = std::make_unique<CollectingServer>(std::move(collect));
  ODMOE_RETURN_IF_ERROR(server->Listen(listen));
  return server;
}

}  // namespace odmoe
