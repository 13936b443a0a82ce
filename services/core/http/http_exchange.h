// One request and the answering of it, from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/core/base/cancellation.h"
#include "services/core/http/http_message.h"

namespace odmoe {

// To be answered once: by Send, or by OpenStream, Write... and Finish; until then its client waits.
// The connection and whoever answers share it. Thread-safe, but for the answering calls, which come
// from one thread at a time.
class HttpExchange {
 public:
  // A writer waits while a client is this much behind.
  static constexpr size_t kMaxBehindBytes = 256 << 10;

  // How to write this answer, by the request's version and method and the server's state.
  struct Framing {
    bool keep_alive = true;
    bool chunked = true;     // a stream without, as for HTTP/1.0, ends with the connection
    bool head_only = false;  // HEAD
  };

  // `wake` tells the connection that there is something to write, or that the answer is complete.
  // Called on the answering thread, under no lock.
  HttpExchange(HttpRequest request, Framing framing, std::function<void()> wake);
  HttpExchange(const HttpExchange&) = delete;
  HttpExchange& operator=(const HttpExchange&) = delete;

  const HttpRequest& request() const { return request_; }
  // Set when the client has gone; lives as long as the exchange.
  const Cancellation& cancellation() const { return gone_; }

  // The whole answer. False: the client has gone, or a stream's header has left already.
  bool Send(const HttpResponse& response);

  // From now on a stream is possible, and Send still is until its header has left, which the first
  // Write or the first Heartbeat causes. `heartbeat` is what a quiet stream carries.
  void OpenStream(absl::string_view content_type, absl::string_view heartbeat);
  // Sends `data` after what was written before; waits while the client is behind. False: it has
  // gone.
  bool Write(absl::string_view data);
  // Ends the stream.
  void Finish();

  // The connection's side.

  // What is to be written now; moves it out.
  std::string TakeOutput();
  // Complete, and all output taken.
  bool Drained() const;
  // Writes a heartbeat into an open stream whose output has all been taken. False: no stream is
  // open.
  bool Heartbeat();
  // The client has gone: sets the cancellation, frees a waiting writer.
  void Abandon();
  bool keep_alive() const { return framing_.keep_alive; }

 private:
  enum class Phase { kUnanswered, kStreamOpen, kStreaming, kComplete };

  void WriteHeadLocked(const HttpResponse& response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeginStreamLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteChunkLocked(absl::string_view data) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayWriteLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const HttpRequest request_;
  const Framing framing_;
  const std::function<void()> wake_;
  Cancellation gone_;

  mutable absl::Mutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kUnanswered;
  std::string stream_content_type_ ABSL_GUARDED_BY(mutex_);
  std::string heartbeat_ ABSL_GUARDED_BY(mutex_);
  std::string output_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace odmoe
