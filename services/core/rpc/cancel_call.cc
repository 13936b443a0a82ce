#include "services/core/rpc/cancel_call.h"

#include "absl/time/time.h"

namespace odmoe {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(20);

}  // namespace

CancelCall::CancelCall(grpc::ClientContext& context, const Cancellation* cancellation) {
  if (cancellation == nullptr) return;
  thread_ = std::thread([this, &context, cancellation] {
    do {
      if (cancellation->cancelled()) {
        context.TryCancel();
        return;
      }
    } while (!done_.WaitForNotificationWithTimeout(kPoll));
  });
}

CancelCall::~CancelCall() {
  done_.Notify();
  if (thread_.joinable()) thread_.join();
}

}  // namespace odmoe
