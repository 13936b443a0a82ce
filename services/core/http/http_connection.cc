#include "services/core/http/http_connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/field.hpp>
#include <boost/beast/http/read.hpp>
#include <chrono>
#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;

constexpr size_t kReadBytes = 4 << 10;
// A client may send its next requests before it has this one's answer, this much of them.
constexpr size_t kMaxPipelinedBytes = 16 << 10;
// What a refused client may still send before its connection is cut.
constexpr size_t kMaxLingerBytes = 8 << 20;
constexpr absl::Duration kLingerTime = absl::Seconds(2);

std::chrono::nanoseconds Chrono(absl::Duration duration) {
  return absl::ToChronoNanoseconds(duration);
}

}  // namespace

HttpConnection::HttpConnection(asio::ip::tcp::socket socket, HttpConnectionContext& context,
                               OnClosed on_closed)
    : context_(context),
      on_closed_(std::move(on_closed)),
      stream_(std::move(socket)),
      heartbeat_(stream_.get_executor()) {}

HttpConnection::~HttpConnection() {
  if (exchange_ != nullptr) exchange_->Abandon();
  on_closed_(this);
}

void HttpConnection::Serve() {
  serving_ = true;
  WaitForRequest(context_.options.header_timeout);
}

// The first byte of a request has a time limit of its own: a kept connection may be quiet long, but
// a header once begun may not.
void HttpConnection::WaitForRequest(absl::Duration patience) {
  if (buffer_.size() > 0) return ReadHeader();
  stream_.expires_after(Chrono(patience));
  stream_.async_read_some(buffer_.prepare(kReadBytes),
                          [self = shared_from_this()](ErrorCode error, size_t bytes) {
                            if (error) return;
                            self->buffer_.commit(bytes);
                            self->ReadHeader();
                          });
}

void HttpConnection::ReadHeader() {
  parser_.emplace();
  parser_->header_limit(uint32_t(context_.options.max_header_bytes));
  parser_->body_limit(context_.options.max_body_bytes);
  stream_.expires_after(Chrono(context_.options.header_timeout));
  http::async_read_header(stream_, buffer_, *parser_,
                          [self = shared_from_this()](ErrorCode error, size_t) {
                            if (error) return self->RefuseUnreadable(error);
                            const auto expect = self->parser_->get()[http::field::expect];
                            if (boost::beast::iequals(expect, "100-continue")) {
                              return self->SendContinueThenReadBody();
                            }
                            self->ReadBody();
                          });
}

void HttpConnection::SendContinueThenReadBody() {
  static constexpr absl::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  asio::async_write(stream_, asio::buffer(kContinue.data(), kContinue.size()),
                    [self = shared_from_this()](ErrorCode error, size_t) {
                      if (!error) self->ReadBody();
                    });
}

void HttpConnection::ReadBody() {
  stream_.expires_after(Chrono(context_.options.body_timeout));
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](ErrorCode error, size_t) {
                     if (error) return self->RefuseUnreadable(error);
                     self->Dispatch();
                   });
}

void HttpConnection::RefuseUnreadable(const ErrorCode& error) {
  int status = 0;
  if (error == http::error::header_limit) {
    status = 431;
  } else if (error == http::error::body_limit) {
    status = 413;
  } else if (error.category() == http::make_error_code(http::error::end_of_stream).category() &&
             error != http::error::end_of_stream && error != http::error::partial_message) {
    status = 400;
  }
  // Else the client has gone or was too slow: the stream's time limit has closed the socket.
  if (status == 0) return;
  Refuse(context_.error_format(status, absl::StrCat("not a request this server reads: ",
                                                    error.message())));
}

void HttpConnection::Refuse(const HttpResponse& response) {
  HttpExchange::Framing framing;
  framing.keep_alive = false;
  exchange_ = std::make_shared<HttpExchange>(HttpRequest{}, framing, [] {});
  exchange_->Send(response);
  Flush();
}

void HttpConnection::Dispatch() {
  http::request<http::string_body> message = parser_->release();
  HttpRequest request;
  request.method = std::string(message.method_string());
  request.path = std::string(message.target().substr(0, message.target().find('?')));
  request.authorization = std::string(message[http::field::authorization]);
  request.body = std::move(message.body());
  HttpExchange::Framing framing;
  framing.chunked = message.version() >= 11;
  // A stream to an HTTP/1.0 client can only end with the connection.
  framing.keep_alive = message.keep_alive() && framing.chunked && !context_.draining;
  framing.head_only = message.method() == http::verb::head;
  exchange_ = std::make_shared<HttpExchange>(
      std::move(request), framing, [weak = weak_from_this()] {
        const auto self = weak.lock();
        if (self == nullptr) return;
        asio::post(self->stream_.get_executor(), [weak] {
          if (const auto self = weak.lock()) self->Flush();
        });
      });
  parser_.reset();
  WatchClient();
  ArmHeartbeat();
  context_.handler(exchange_);
}

void HttpConnection::WatchClient() {
  if (watching_ || buffer_.size() >= kMaxPipelinedBytes) return;
  watching_ = true;
  stream_.expires_never();  // the read's; writes set their own
  stream_.async_read_some(
      buffer_.prepare(kReadBytes), [self = shared_from_this()](ErrorCode error, size_t bytes) {
        self->watching_ = false;
        if (!error) self->buffer_.commit(bytes);
        if (self->next_after_watch_ && (!error || error == asio::error::operation_aborted)) {
          self->next_after_watch_ = false;
          return self->WaitForRequest(self->context_.options.idle_timeout);
        }
        if (error) return self->Abort();
        if (self->exchange_ != nullptr) self->WatchClient();
      });
}

void HttpConnection::Flush() {
  if (flushing_ || exchange_ == nullptr) return;
  writing_ = exchange_->TakeOutput();
  if (writing_.empty()) return AfterFlush();
  flushing_ = true;
  stream_.expires_after(Chrono(context_.options.write_timeout));
  asio::async_write(stream_, asio::buffer(writing_),
                    [self = shared_from_this()](ErrorCode error, size_t) {
                      self->flushing_ = false;
                      if (error) return self->Abort();
                      self->Flush();
                    });
}

void HttpConnection::AfterFlush() {
  if (exchange_->Drained()) return EndExchange();
  ArmHeartbeat();
}

void HttpConnection::EndExchange() {
  const bool keep = exchange_->keep_alive() && !context_.draining;
  exchange_ = nullptr;
  heartbeat_.cancel();
  context_.on_exchange_end();
  if (!keep) return CloseGently();
  if (!watching_) return WaitForRequest(context_.options.idle_timeout);
  next_after_watch_ = true;
  stream_.cancel();
}

// Anew after each write, so a heartbeat is sent only into silence.
void HttpConnection::ArmHeartbeat() {
  heartbeat_.expires_after(
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(
          Chrono(context_.options.heartbeat_interval)));
  heartbeat_.async_wait([self = shared_from_this()](ErrorCode error) {
    if (error || self->exchange_ == nullptr || self->flushing_) return;
    if (self->exchange_->Heartbeat()) return self->Flush();
    self->ArmHeartbeat();
  });
}

void HttpConnection::Abort() {
  if (exchange_ != nullptr) {
    exchange_->Abandon();
    exchange_ = nullptr;
    context_.on_exchange_end();
  }
  heartbeat_.cancel();
  stream_.close();
}

// Closing a socket with bytes unread resets the connection, and the reset may overtake the answer.
void HttpConnection::CloseGently() {
  ErrorCode ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  if (watching_) return stream_.cancel();  // its handler sees no exchange and the socket goes
  stream_.expires_after(Chrono(kLingerTime));
  Linger();
}

void HttpConnection::Linger() {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(kReadBytes),
                          [self = shared_from_this()](ErrorCode error, size_t bytes) {
                            self->lingered_bytes_ += bytes;
                            if (error || self->lingered_bytes_ > kMaxLingerBytes) return;
                            self->Linger();
                          });
}

}  // namespace odmoe
