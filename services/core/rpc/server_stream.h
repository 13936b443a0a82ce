// One shape for every server-streaming handler: a blocking producer on an executor, with gRPC's
// flow control felt as a Write that waits.
//
//   return ServeStream<v1::WatchJobResponse>(
//       context, executor_, [this, request](StreamWriter<v1::WatchJobResponse>& out) {
//         ...
//         if (!out.Write(response)) return absl::CancelledError("client left");
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

// The producer's end of a stream. Used by the producer's thread alone.
template <typename Response>
class StreamWriter {
 public:
  virtual ~StreamWriter() = default;
  // Sends a message once the one before has left; false: the client is gone, stop.
  virtual bool Write(const Response& response) = 0;
  // Deadline and cancellation of the call.
  virtual const ServerCall& call() const = 0;
};

namespace rpc_internal {

template <typename Response, typename Producer>
class StreamCall : public grpc::ServerWriteReactor<Response>, public StreamWriter<Response> {
 public:
  StreamCall(grpc::CallbackServerContext* context, Producer producer)
      : call_{DeadlineOf(*context), &cancellation_}, producer_(std::move(producer)) {}

  void Run() { this->Finish(ToGrpcStatus(producer_(static_cast<StreamWriter<Response>&>(*this)))); }

  bool Write(const Response& response) override {
    if (cancellation_.cancelled()) return false;
    {
      absl::MutexLock lock(&mutex_);
      writing_ = true;
    }
    this->StartWrite(&response);  // `response` lives on the producer's stack, which waits here
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(+[](bool* writing) { return !*writing; }, &writing_));
    return write_ok_ && !cancellation_.cancelled();
  }

  const ServerCall& call() const override { return call_; }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    write_ok_ = ok;
  }
  void OnCancel() override { cancellation_.Cancel(); }
  void OnDone() override { delete this; }

 private:
  Cancellation cancellation_;
  ServerCall call_;
  Producer producer_;
  absl::Mutex mutex_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool write_ok_ ABSL_GUARDED_BY(mutex_) = true;
};

}  // namespace rpc_internal

// Runs `producer(StreamWriter<Response>&) -> absl::Status` on `executor`; the request outlives it.
template <typename Response, typename Producer>
grpc::ServerWriteReactor<Response>* ServeStream(grpc::CallbackServerContext* context,
                                                ThreadPool& executor, Producer producer) {
  auto* call = new rpc_internal::StreamCall<Response, Producer>(context, std::move(producer));
  executor.Schedule([call] { call->Run(); });
  return call;
}

}  // namespace odmoe
