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
#include "absl/time/time.h"
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
  StreamCall(grpc::CallbackServerContext* context, Producer producer, absl::Duration patience)
      : context_(context),
        call_{DeadlineOf(*context), &cancellation_},
        producer_(std::move(producer)),
        patience_(patience) {}

  void Run() { this->Finish(ToGrpcStatus(producer_(static_cast<StreamWriter<Response>&>(*this)))); }

  bool Write(const Response& response) override {
    if (cancellation_.cancelled()) return false;
    {
      absl::MutexLock lock(&mutex_);
      writing_ = true;
    }
    this->StartWrite(&response);  // `response` lives on the producer's stack, which waits here
    absl::MutexLock lock(&mutex_);
    const absl::Condition left(+[](bool* writing) { return !*writing; }, &writing_);
    if (!mutex_.AwaitWithTimeout(left, patience_)) {
      context_->TryCancel();  // gRPC gives the message up then
      mutex_.Await(left);
    }
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
  grpc::CallbackServerContext* const context_;  // valid until Finish
  Cancellation cancellation_;
  ServerCall call_;
  Producer producer_;
  const absl::Duration patience_;
  absl::Mutex mutex_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool write_ok_ ABSL_GUARDED_BY(mutex_) = true;
};

template <typename Response>
class RefusedStream : public grpc::ServerWriteReactor<Response> {
 public:
  explicit RefusedStream(const absl::Status& status) { this->Finish(ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

}  // namespace rpc_internal

// Runs `producer(StreamWriter<Response>&) -> absl::Status` on `executor`; the request outlives it.
// A client that takes nothing for `patience` while the producer writes is cut off.
template <typename Response, typename Producer>
grpc::ServerWriteReactor<Response>* ServeStream(
    grpc::CallbackServerContext* context, ThreadPool& executor, Producer producer,
    absl::Duration patience = absl::InfiniteDuration()) {
  auto* call =
      new rpc_internal::StreamCall<Response, Producer>(context, std::move(producer), patience);
  executor.Schedule([call] { call->Run(); });
  return call;
}

// Ends a call with an error at once, and waits for no thread.
template <typename Response>
grpc::ServerWriteReactor<Response>* RefuseStream(const absl::Status& status) {
  return new rpc_internal::RefusedStream<Response>(status);
}

}  // namespace odmoe
