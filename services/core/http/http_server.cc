#include "services/core/http/http_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <exception>
#include <thread>
#include <unordered_set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "services/core/base/descriptor_reserve.h"
#include "services/core/base/status_macros.h"
#include "services/core/http/http_connection.h"

namespace odmoe {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

// Out of descriptors or memory: some of the connections will end and give theirs back.
constexpr auto kAcceptBackOff = std::chrono::milliseconds(100);
// Connections beyond the limit that may be told so at once; more are closed without a word.
constexpr int kMaxRefused = 64;

absl::StatusOr<tcp::endpoint> ParseListen(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(listen.substr(colon + 1), &port) ||
      port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("not an address to listen on: '", listen, "'; expected HOST:PORT"));
  }
  std::string host = listen.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  if (host == "localhost") host = "127.0.0.1";
  ErrorCode error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not an address to listen on: '", listen, "'; HOST is an IP address or \"localhost\""));
  }
  return tcp::endpoint(address, uint16_t(port));
}

class AcceptingHttpServer : public HttpServer {
 public:
  AcceptingHttpServer(const HttpServerOptions& options, Handler handler, ErrorFormat error_format)
      : context_{options, std::move(handler), std::move(error_format), false,
                 [this] { CheckDrained(); }},
        acceptor_(io_),
        back_off_(io_) {}

  ~AcceptingHttpServer() override {
    if (!thread_.joinable()) return;  // never started
    if (!closed_.HasBeenNotified()) Drain(absl::Now());
    thread_.join();
  }

  absl::Status Listen(const tcp::endpoint& endpoint) {
    ErrorCode error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      return absl::UnavailableError(absl::StrCat("cannot listen on ", context_.options.listen, ": ",
                                                 error.message()));
    }
    const tcp::endpoint bound = acceptor_.local_endpoint(error);
    if (error) return absl::UnavailableError(error.message());
    host_ = bound.address().to_string();
    port_ = bound.port();
    Accept();
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  const std::string& host() const override { return host_; }
  int port() const override { return port_; }

  void Drain(absl::Time deadline) override {
    asio::post(io_, [this] {
      context_.draining = true;
      CheckDrained();
    });
    drained_.WaitForNotificationWithDeadline(deadline);
    asio::post(io_, [this] { CloseAll(); });
    closed_.WaitForNotification();
  }

 private:
  void Run() {
    while (true) {
      try {
        io_.run();
        return;
      } catch (const std::exception&) {
        // Out of memory in one connection's handler: that connection is gone, the others go on.
      }
    }
  }

  void Accept() {
    acceptor_.async_accept([this](ErrorCode error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (error) return AcceptLater();
      Welcome(std::move(socket));
      Accept();
    });
  }

  void AcceptLater() {
    back_off_.expires_after(kAcceptBackOff);
    back_off_.async_wait([this](ErrorCode error) {
      if (!error && acceptor_.is_open()) Accept();
    });
  }

  void Welcome(tcp::socket socket) {
    const int limit = context_.options.max_connections;
    // Leaving here closes it.
    if (int(connections_.size()) >= limit + kMaxRefused) return;
    if (InDescriptorReserve(socket.native_handle())) return;
    ErrorCode ignored;
    socket.set_option(tcp::no_delay(true), ignored);  // a token is to leave when it is there
    const auto connection = std::make_shared<HttpConnection>(
        std::move(socket), context_, [this](HttpConnection* gone) { Forget(gone); });
    connections_.insert(connection.get());
    // Those refused do not count: they linger until their clients have read why.
    if (served_ >= limit) {
      return connection->Refuse(context_.error_format(503, "too many connections"));
    }
    ++served_;
    connection->Serve();
  }

  void Forget(HttpConnection* connection) {
    connections_.erase(connection);
    if (connection->serving()) --served_;
    CheckDrained();
    CheckClosed();
  }

  // Posted rather than done: the connection that calls is amid its own change.
  void CheckDrained() {
    if (!context_.draining || drained_.HasBeenNotified()) return;
    asio::post(io_, [this] {
      for (HttpConnection* connection : connections_) {
        if (connection->answering()) return;
      }
      if (!drained_.HasBeenNotified()) drained_.Notify();
    });
  }

  void CloseAll() {
    closing_ = true;
    ErrorCode ignored;
    acceptor_.close(ignored);
    back_off_.cancel();
    // Each is kept alive while it is aborted; some have no operation that holds them.
    std::vector<std::shared_ptr<HttpConnection>> open;
    for (HttpConnection* connection : connections_) {
      if (auto held = connection->weak_from_this().lock()) open.push_back(std::move(held));
    }
    for (const auto& connection : open) connection->Abort();
    open.clear();
    CheckClosed();
  }

  void CheckClosed() {
    if (closing_ && connections_.empty() && !closed_.HasBeenNotified()) closed_.Notify();
  }

  HttpConnectionContext context_;
  std::string host_;
  int port_ = 0;
  std::unordered_set<HttpConnection*> connections_;
  int served_ = 0;  // of connections_, those not refused
  bool closing_ = false;
  absl::Notification drained_;
  absl::Notification closed_;
  // Destroyed first, while what its handlers refer to is still there.
  asio::io_context io_{1};
  tcp::acceptor acceptor_;
  asio::steady_timer back_off_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              Handler handler,
                                                              ErrorFormat error_format) {
  ODMOE_ASSIGN_OR_RETURN(const tcp::endpoint endpoint, ParseListen(options.listen));
  auto server = std::make_unique<AcceptingHttpServer>(options, std::move(handler),
                                                      std::move(error_format));
  ODMOE_RETURN_IF_ERROR(server->Listen(endpoint));
  return server;
}

}  // namespace odmoe
