// A gRPC server with health and reflection, on a TCP port or a UNIX socket.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grpc {
class Service;
}

namespace odmoe {

struct RpcServerOptions {
  // "HOST:PORT" (port 0: any free one), or "unix:/path/of.sock" (made 0600, removed at the end).
  std::string listen = "127.0.0.1:0";
  // Served for the server's lifetime; not owned.
  std::vector<grpc::Service*> services;
  // Their full names, v1::JobService::service_full_name(), for health checks of one service.
  std::vector<std::string> service_names;
  int max_message_bytes = 20 << 20;  // of a received message
};

// Accepts connections itself rather than by gRPC's listener: Debian's gRPC never accepts again once
// accept() has run out of descriptors. Thread-safe.
class RpcServer {
 public:
  // INVALID_ARGUMENT: an address that is none. UNAVAILABLE: the address is taken.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options);
  // Shuts down at once if Shutdown was not called.
  virtual ~RpcServer() = default;

  // What clients dial: "127.0.0.1:41234" or "unix:/path".
  virtual const std::string& address() const = 0;
  // What health checks answer, for "" and every service. Serving from the start.
  virtual void SetServing(bool serving) = 0;
  // Stops accepting, lets calls under way end until the deadline, then cancels them.
  virtual void Shutdown(absl::Time deadline) = 0;
};

}  // namespace odmoe
