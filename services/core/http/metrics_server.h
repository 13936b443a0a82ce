// Metrics by HTTP, as Prometheus collects them.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace odmoe {

// Answers GET /metrics with what `collect` returns then, which is text in Prometheus' exposition
// format; anything else with 404 or 405. Takes few connections and small requests. Serves until
// destroyed; `collect` is not running any more then. Thread-safe.
class MetricsServer {
 public:
  // Runs on a thread of its own, one call at a time, so it may block.
  using Collect = std::function<std::string()>;

  // `listen`: HOST:PORT; port 0: any free one. Errors of HttpServer::Start.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& listen,
                                                              Collect collect);
  virtual ~MetricsServer() = default;

  // "http://127.0.0.1:9100/metrics"
  virtual const std::string& url() const = 0;
};

// The content type of that text.
inline constexpr char kMetricsContentType[] = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace odmoe
