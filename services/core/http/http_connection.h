// One client's connection: reads requests, writes their answers, keeps the time limits.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "services/core/http/http_exchange.h"
#include "services/core/http/http_server.h"

namespace odmoe {

// What connections share with their server. All on its thread.
struct HttpConnectionContext {
  HttpServerOptions options;
  HttpServer::Handler handler;
  HttpServer::ErrorFormat error_format;
  bool draining = false;  // no connection is kept after its answer
  std::function<void()> on_exchange_end;
};

//   wait -> header -> body -> answer -+-> wait        (keep-alive)
//                 \-> refused --------+-> linger -> closed
//
// While an answer is under way the socket is read on, into a small bounded buffer: that is how a
// client that leaves is noticed. Lives until its socket is closed and its last operation is done;
// used on the server's thread alone, but for what exchanges post.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  using OnClosed = std::function<void(HttpConnection*)>;

  // `context` outlives the connection. `on_closed` is called from the destructor.
  HttpConnection(boost::asio::ip::tcp::socket socket, HttpConnectionContext& context,
                 OnClosed on_closed);
  ~HttpConnection();

  // Serves requests.
  void Serve();
  // Answers with this whatever is asked, and closes.
  void Refuse(const HttpResponse& response);
  // Closes at once; an exchange under way is abandoned.
  void Abort();
  bool answering() const { return exchange_ != nullptr; }
  // False for a connection that was only refused.
  bool serving() const { return serving_; }

 private:
  using RequestParser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using ErrorCode = boost::beast::error_code;

  void WaitForRequest(absl::Duration patience);
  void ReadHeader();
  void ReadBody();
  void SendContinueThenReadBody();
  void Dispatch();
  void RefuseUnreadable(const ErrorCode& error);

  void WatchClient();
  void Flush();
  void AfterFlush();
  void EndExchange();
  void ArmHeartbeat();

  void CloseGently();
  void Linger();

  HttpConnectionContext& context_;
  const OnClosed on_closed_;
  boost::beast::tcp_stream stream_;
  boost::asio::steady_timer heartbeat_;
  boost::beast::flat_buffer buffer_;
  std::optional<RequestParser> parser_;
  std::shared_ptr<HttpExchange> exchange_;
  std::string writing_;             // bytes on their way, owned here until written
  bool serving_ = false;
  bool flushing_ = false;
  bool watching_ = false;           // a read is pending while an answer is under way
  bool next_after_watch_ = false;   // the answer is complete; the pending read is being cancelled
  size_t lingered_bytes_ = 0;
};

}  // namespace odmoe
