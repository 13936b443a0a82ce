// Experts computed by a store on another host.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/core/experts/expert_executor.h"
#include "services/core/experts/remote_mode.h"

namespace odmoe {

struct RemoteExecutorOptions {
  // How long a call may take at most, the caller's deadline aside.
  absl::Duration patience = absl::Seconds(10);
};

// Has experts computed by the store at `endpoint`. An empty `model` names the store's only one.
// UNAVAILABLE: nobody answers. NOT_FOUND: no such model. UNIMPLEMENTED: the store was started
// without compute threads. FAILED_PRECONDITION: it computes with another instruction set than this
// process, so that results might differ in the last bits.
absl::StatusOr<std::shared_ptr<ExpertExecutor>> ConnectRemoteExecutor(
    const std::string& endpoint, const std::string& model,
    const RemoteExecutorOptions& options = {});

// As `mode` asks: null for kFetch, and for kAuto where the store does not compute, or computes
// otherwise than this host, with why in `warning`. Errors as above.
absl::StatusOr<std::shared_ptr<ExpertExecutor>> ConnectRemoteExecutor(
    const std::string& endpoint, const std::string& model, RemoteMode mode, std::string& warning);

}  // namespace odmoe
