#include "services/core/http/http_exchange.h"

#include <boost/beast/http/status.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace odmoe {
namespace {

absl::string_view ReasonPhrase(int status) {
  const auto phrase =
      boost::beast::http::obsolete_reason(boost::beast::http::int_to_status(status));
  return absl::string_view(phrase.data(), phrase.size());
}

}  // namespace

HttpExchange::HttpExchange(HttpRequest request, Framing framing, std::function<void()> wake)
    : request_(std::move(request)), framing_(framing), wake_(std::move(wake)) {}

void HttpExchange::WriteHeadLocked(const HttpResponse& response) {
  absl::StrAppend(&output_, "HTTP/1.1 ", response.status, " ", ReasonPhrase(response.status),
                  "\r\nContent-Type: ", response.content_type, "\r\n");
  for (const auto& [name, value] : response.headers) {
    absl::StrAppend(&output_, name, ": ", value, "\r\n");
  }
  if (!framing_.keep_alive) absl::StrAppend(&output_, "Connection: close\r\n");
}

bool HttpExchange::Send(const HttpResponse& response) {
  {
    absl::MutexLock lock(&mutex_);
    if (gone_.cancelled()) return false;
    if (phase_ == Phase::kStreaming || phase_ == Phase::kComplete) return false;
    WriteHeadLocked(response);
    absl::StrAppend(&output_, "Content-Length: ", response.body.size(), "\r\n\r\n",
                    framing_.head_only ? "" : response.body);
    phase_ = Phase::kComplete;
  }
  wake_();
  return true;
}

void HttpExchange::OpenStream(absl::string_view content_type, absl::string_view heartbeat) {
  absl::MutexLock lock(&mutex_);
  if (phase_ != Phase::kUnanswered) return;
  stream_content_type_ = std::string(content_type);
  heartbeat_ = std::string(heartbeat);
  phase_ = Phase::kStreamOpen;
}

void HttpExchange::BeginStreamLocked() {
  if (phase_ != Phase::kStreamOpen) return;
  HttpResponse head;
  head.content_type = stream_content_type_;
  head.headers = {{"Cache-Control", "no-cache"}};
  WriteHeadLocked(head);
  absl::StrAppend(&output_, framing_.chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
  phase_ = Phase::kStreaming;
}

void HttpExchange::WriteChunkLocked(absl::string_view data) {
  if (data.empty()) return;  // an empty chunk would end the body
  if (framing_.chunked) {
    absl::StrAppend(&output_, absl::StrFormat("%x\r\n", data.size()), data, "\r\n");
  } else {
    absl::StrAppend(&output_, data);
  }
}

bool HttpExchange::MayWriteLocked() const {
  return gone_.cancelled() || output_.size() < kMaxBehindBytes;
}

bool HttpExchange::Write(absl::string_view data) {
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &HttpExchange::MayWriteLocked));
    if (gone_.cancelled()) return false;
    BeginStreamLocked();
    if (phase_ != Phase::kStreaming) return false;
    WriteChunkLocked(data);
  }
  wake_();
  return true;
}

void HttpExchange::Finish() {
  {
    absl::MutexLock lock(&mutex_);
    BeginStreamLocked();
    if (phase_ != Phase::kStreaming) return;
    if (framing_.chunked) absl::StrAppend(&output_, "0\r\n\r\n");
    phase_ = Phase::kComplete;
  }
  wake_();
}

std::string HttpExchange::TakeOutput() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(output_, std::string());
}

bool HttpExchange::Drained() const {
  absl::MutexLock lock(&mutex_);
  return phase_ == Phase::kComplete && output_.empty();
}

bool HttpExchange::Heartbeat() {
  absl::MutexLock lock(&mutex_);
  if (phase_ != Phase::kStreamOpen && phase_ != Phase::kStreaming) return false;
  BeginStreamLocked();
  WriteChunkLocked(heartbeat_);
  return true;
}

void HttpExchange::Abandon() {
  absl::MutexLock lock(&mutex_);  // so that a writer's wait sees the change
  gone_.Cancel();
}

}  // namespace odmoe
