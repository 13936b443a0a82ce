// Experts of a store on another host.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/core/experts/expert_source.h"

namespace odmoe {

struct RemoteSourceOptions {
  size_t streams = 8;      // experts read at once
  size_t connections = 4;  // TCP connections they share; one is served by one core at each end
  // How long a read goes on without a byte. A stream that breaks is taken up where it broke.
  absl::Duration patience = absl::Seconds(5);
};

// Reads experts from the store at `endpoint` by gRPC: the source of a caching store of one's own.
// Bytes are hashed while they are received. A read that nobody wants any more ends its stream.
// Has malloc keep up to 16 MiB an arena of what it has freed, in all of the process.
// An empty `model` names the store's only one. UNAVAILABLE: nobody answers. NOT_FOUND: no such
// model.
absl::StatusOr<std::unique_ptr<ExpertSource>> ConnectRemoteSource(
    const std::string& endpoint, const std::string& model, const RemoteSourceOptions& options);
absl::StatusOr<std::unique_ptr<ExpertSource>> ConnectRemoteSource(const std::string& endpoint,
                                                                  const std::string& model);

}  // namespace odmoe
