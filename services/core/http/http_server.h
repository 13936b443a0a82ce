// An HTTP/1.1 server that stays within its bounds whatever its clients do.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/core/http/http_exchange.h"
#include "services/core/http/http_message.h"

namespace odmoe {

struct HttpServerOptions {
  std::string listen = "127.0.0.1:0";  // HOST:PORT, HOST an address or "localhost"
  int max_connections = 1024;          // those beyond are answered 503 and closed
  size_t max_header_bytes = 16 << 10;  // of a request: 431
  size_t max_body_bytes = 4 << 20;     // 413
  absl::Duration header_timeout = absl::Seconds(10);  // for a whole header to arrive
  absl::Duration body_timeout = absl::Seconds(60);    // for a whole body
  absl::Duration idle_timeout = absl::Seconds(75);    // between requests of a connection
  absl::Duration write_timeout = absl::Seconds(30);   // for a client to take what is sent
  absl::Duration heartbeat_interval = absl::Seconds(10);  // of a quiet stream
};

// Answers requests by a handler. One thread of its own moves all bytes; handlers hand their work to
// threads of theirs. Thread-safe.
class HttpServer {
 public:
  // Called on the server's thread, so it must not block. Has the exchange answered, then or later.
  using Handler = std::function<void(std::shared_ptr<HttpExchange>)>;
  // The answer to what is no proper request: its status and what is wrong.
  using ErrorFormat = std::function<HttpResponse(int status, const std::string& message)>;

  // INVALID_ARGUMENT: an address that is none. UNAVAILABLE: it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           Handler handler,
                                                           ErrorFormat error_format);
  // Drains with no patience, if Drain was not called. Nobody answers an exchange any more by then.
  virtual ~HttpServer() = default;

  // The address bound, "127.0.0.1", and the real port.
  virtual const std::string& host() const = 0;
  virtual int port() const = 0;

  // Lets answers under way be completed until the deadline, still accepting connections, whose
  // requests the handler may refuse; then closes everything, which sets the cancellation of each
  // exchange left.
  virtual void Drain(absl::Time deadline) = 0;
};

}  // namespace odmoe
