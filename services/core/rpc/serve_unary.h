// One shape for every unary handler: parse, validate and run off gRPC's threads, then answer.
//
//   grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context,
//                                    const v1::GetJobRequest* request,
//                                    v1::GetJobResponse* response) override {
//     return ServeUnary(context, executor_, [this, request, response](const CallOptions&) {
//       ...
//       return absl::OkStatus();
//     });
//   }
#pragma once

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "services/core/base/cancellation.h"
#include "services/core/base/thread_pool.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {

// What a handler may need to know of its call. The cancellation is set when the client gives up,
// its deadline passes or its connection breaks.
struct ServerCall {
  absl::Time deadline = absl::InfiniteFuture();
  const Cancellation* cancellation = nullptr;
};

// The call's deadline, or InfiniteFuture where the client gave none.
absl::Time DeadlineOf(const grpc::CallbackServerContext& context);

namespace rpc_internal {

template <typename Handler>
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(grpc::CallbackServerContext* context, Handler handler)
      : call_{DeadlineOf(*context), &cancellation_}, handler_(std::move(handler)) {}

  void Run() { Finish(ToGrpcStatus(handler_(static_cast<const ServerCall&>(call_)))); }
  void OnCancel() override { cancellation_.Cancel(); }
  void OnDone() override { delete this; }

 private:
  Cancellation cancellation_;
  ServerCall call_;
  Handler handler_;
};

}  // namespace rpc_internal

// Runs `handler(const ServerCall&) -> absl::Status` on `executor`; request and response outlive it.
template <typename Handler>
grpc::ServerUnaryReactor* ServeUnary(grpc::CallbackServerContext* context, ThreadPool& executor,
                                     Handler handler) {
  auto* call = new rpc_internal::UnaryCall<Handler>(context, std::move(handler));
  executor.Schedule([call] { call->Run(); });
  return call;
}

}  // namespace odmoe
