// Ends a gRPC call when its caller's Cancellation is set.
#pragma once

#include <thread>

#include "absl/synchronization/notification.h"
#include "grpcpp/client_context.h"
#include "services/core/base/cancellation.h"

namespace odmoe {

// Watches from construction to destruction. Polls every 20 ms, as a Cancellation wakes
// nobody; `cancellation` may be null. Context and cancellation outlive it.
class CancelCall {
 public:
  CancelCall(grpc::ClientContext& context, const Cancellation* cancellation);
  ~CancelCall();
  CancelCall(const CancelCall&) = delete;
  CancelCall& operator=(const CancelCall&) = delete;

 private:
  absl::Notification done_;
  std::thread thread_;
};

}  // namespace odmoe
