// One shape for every client-streaming handler: a blocking consumer on an executor.
//
//   return ServeClientStream<v1::UploadFileRequest>(
//       context, executor_, response, [this](StreamReader<v1::UploadFileRequest>& in,
//                                            v1::UploadFileResponse& response) {
//         v1::UploadFileRequest request;
//         while (in.Read(request)) ...
//         return absl::OkStatus();
//       });
#pragma once

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "services/core/rpc/serve_unary.h"

namespace odmoe {

// The consumer's end of a stream. Used by the consumer's thread alone.
template <typename Request>
class StreamReader {
 public:
  virtual ~StreamReader() = default;
  // Waits for the next message; false: the client has sent all, or is gone (then the call's
  // cancellation is set).
  virtual bool Read(Request& request) = 0;
  // Deadline and cancellation of the call.
  virtual const ServerCall& call() const = 0;
};

namespace rpc_internal {

template <typename Request, typename Response, typename Consumer>
class ClientStreamCall : public grpc::ServerReadReactor<Request>, public StreamReader<Request> {
 public:
  ClientStreamCall(grpc::CallbackServerContext* context, Response* response, Consumer consumer)
      : call_{DeadlineOf(*context), &cancellation_},
        response_(response),
        consumer_(std::move(consumer)) {}

  void Run() {
    this->Finish(
        ToGrpcStatus(consumer_(static_cast<StreamReader<Request>&>(*this), *response_)));
  }

  bool Read(Request& request) override {
    if (cancellation_.cancelled()) return false;
    {
      absl::MutexLock lock(&mutex_);
      reading_ = true;
    }
    this->StartRead(&request);  // `request` lives on the consumer's stack, which waits here
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(+[](bool* reading) { return !*reading; }, &reading_));
    return read_ok_;
  }

  const ServerCall& call() const override { return call_; }

  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    read_ok_ = ok;
  }
  void OnCancel() override { cancellation_.Cancel(); }
  void OnDone() override { delete this; }

 private:
  Cancellation cancellation_;
  ServerCall call_;
  Response* const response_;
  Consumer consumer_;
  absl::Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool read_ok_ ABSL_GUARDED_BY(mutex_) = true;
};

}  // namespace rpc_internal

// Runs `consumer(StreamReader<Request>&, Response&) -> absl::Status` on `executor`; the response
// outlives it.
template <typename Request, typename Response, typename Consumer>
grpc::ServerReadReactor<Request>* ServeClientStream(grpc::CallbackServerContext* context,
                                                    ThreadPool& executor, Response* response,
                                                    Consumer consumer) {
  auto* call = new rpc_internal::ClientStreamCall<Request, Response, Consumer>(
      context, response, std::move(consumer));
  executor.Schedule([call] { call->Run(); });
  return call;
}

}  // namespace odmoe
