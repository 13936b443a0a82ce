// Execute calls: from messages to ExpertComputer and back.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "odmoe/expert_storage/v1/expert_storage_service.pb.h"
#include "services/core/base/thread_pool.h"
#include "services/core/rpc/server_stream.h"
#include "services/expert_storage/execute/expert_computer.h"
#include "services/expert_storage/service/store_host.h"

namespace odmoe {

// Serves Execute on threads of its own, so that calls which wait for experts, or for a slow caller,
// are in nobody else's way. Thread-safe.
class ExecuteCalls {
 public:
  using Writer = grpc::ServerWriteReactor<expert_storage::v1::ExecuteResponse>;

  // `models` outlives it. `compute_threads` 0: every call is UNIMPLEMENTED. A client that takes
  // nothing for `patience` is cut off.
  ExecuteCalls(StoreHost& models, int compute_threads, absl::Duration patience);
  ~ExecuteCalls();

  int compute_threads() const { return computer_ == nullptr ? 0 : computer_->threads(); }

  Writer* Start(grpc::CallbackServerContext* context,
                const expert_storage::v1::ExecuteRequest* request);

 private:
  // Calls at once. What one holds while it waits for the threads is a few hidden states.
  static constexpr size_t kRunning = ExpertComputer::kMostCallers;
  // Messages in memory, each of 16 MiB at most; more are refused.
  static constexpr int kMostCalls = 16;

  absl::Status Run(const expert_storage::v1::ExecuteRequest& request,
                   StreamWriter<expert_storage::v1::ExecuteResponse>& out);

  StoreHost& models_;
  const absl::Duration patience_;
  std::unique_ptr<ExpertComputer> computer_;
  std::atomic<int> calls_{0};
  ThreadPool pool_;  // last: its threads use the rest
};

}  // namespace odmoe
