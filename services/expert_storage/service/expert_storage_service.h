// The gRPC face of expert storage.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/expert_storage/service/store_host.h"

namespace grpc {
class Service;
}

namespace odmoe {

struct ExpertStorageServiceOptions {
  std::string
      socket_directory;  // of the socket that hands out descriptors; empty: a new, private one
  size_t threads = 16;           // that run requests
  // How long a client on another host may take nothing of what it is sent.
  absl::Duration stream_patience = absl::Seconds(30);
  int compute_threads = 0;       // that compute experts for other hosts; 0: none are computed
};

// Serves `models`, which outlives it. Destroyed after the server that serves it has shut down.
class ExpertStorageServer {
 public:
  // UNAVAILABLE: the socket cannot be bound.
  static absl::StatusOr<std::unique_ptr<ExpertStorageServer>> Create(
      StoreHost& models, const ExpertStorageServiceOptions& options);
  virtual ~ExpertStorageServer() = default;
  // To be registered with a server; owned by this.
  virtual grpc::Service* service() = 0;
  // The service's full name, for health checks.
  static const char* Name();
  // Ends the sessions, each once it has its answers: they would not end by themselves.
  virtual void Drain() = 0;
};

}  // namespace odmoe
