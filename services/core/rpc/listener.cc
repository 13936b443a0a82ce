#include "services/core/rpc/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "services/core/base/descriptor_reserve.h"

namespace odmoe {
namespace {

constexpr int kBacklog = 512;
constexpr int kRetryMs = 50;  // between tries when accept() has run out of something

absl::Status SocketError(const std::string& address, absl::string_view call) {
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", address, ": ", call, ": ", std::strerror(errno)));
}

absl::Status BadAddress(const std::string& address) {
  return absl::InvalidArgumentError(
      absl::StrCat("not a listen address: '", address,
                   "'; expected HOST:PORT with a numeric HOST, or unix:/path"));
}

struct TcpAddress {
  sockaddr_storage storage = {};
  socklen_t length = 0;
};

absl::StatusOr<TcpAddress> ParseTcp(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return BadAddress(address);
  std::string host = address.substr(0, colon);
  uint32_t port = 0;
  if (!absl::SimpleAtoi(address.substr(colon + 1), &port) || port > 65535) {
    return BadAddress(address);
  }
  if (host == "localhost") host = "127.0.0.1";
  TcpAddress result;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&result.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&result.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
    result.length = sizeof(sockaddr_in);
    return result;
  }
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]") &&
      inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
    result.length = sizeof(sockaddr_in6);
    return result;
  }
  return BadAddress(address);
}

absl::StatusOr<int> BindTcp(const std::string& address, std::string& bound) {
  auto parsed = ParseTcp(address);
  if (!parsed.ok()) return parsed.status();
  const int family = parsed->storage.ss_family;
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return SocketError(address, "socket");
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  socklen_t length = sizeof parsed->storage;
  auto* raw = reinterpret_cast<sockaddr*>(&parsed->storage);
  if (bind(fd, raw, parsed->length) != 0 || listen(fd, kBacklog) != 0 ||
      getsockname(fd, raw, &length) != 0) {
    const absl::Status status = SocketError(address, "bind");
    close(fd);
    return status;
  }
  const uint16_t port = ntohs(family == AF_INET
                                  ? reinterpret_cast<sockaddr_in*>(raw)->sin_port
                                  : reinterpret_cast<sockaddr_in6*>(raw)->sin6_port);
  bound = absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
  return fd;
}

// A socket file that nobody listens on is left over from a process that died.
void RemoveStaleSocket(const sockaddr_un& name) {
  struct stat info;
  if (lstat(name.sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return;
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return;
  if (connect(probe, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 &&
      errno == ECONNREFUSED) {
    unlink(name.sun_path);
  }
  close(probe);
}

absl::StatusOr<int> BindUnix(const std::string& address, const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof name.sun_path) {
    return absl::InvalidArgumentError(absl::StrCat(
        "socket path must have 1 to ", sizeof name.sun_path - 1, " bytes: '", path, "'"));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  RemoveStaleSocket(name);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return SocketError(address, "socket");
  // On Linux the socket's own mode is that of the file bind() makes: no moment when others may
  // dial.
  if (fchmod(fd, 0600) != 0 || bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) != 0 ||
      chmod(name.sun_path, 0600) != 0 || listen(fd, kBacklog) != 0) {
    const absl::Status status = SocketError(address, "bind");
    close(fd);
    return status;
  }
  return fd;
}

}  // namespace

class Listener::Loop {
 public:
  Loop(int listen_fd, OnConnection on_connection)
      : listen_fd_(listen_fd),
        stop_fd_(eventfd(0, EFD_CLOEXEC)),
        on_connection_(std::move(on_connection)),
        thread_([this] { Run(); }) {}

  ~Loop() {
    const uint64_t one = 1;
    while (write(stop_fd_, &one, sizeof one) < 0 && errno == EINTR) {
    }
    thread_.join();
    close(stop_fd_);
  }

 private:
  void Run() {
    while (WaitForConnection()) {
      const int fd = accept4(listen_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0 && InDescriptorReserve(fd)) {
        close(fd);
      } else if (fd >= 0) {
        const int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on,
                   sizeof on);  // fails on UNIX sockets: no matter
        on_connection_(fd);
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        if (!WaitForStop(kRetryMs)) continue;
        return;
      }
    }
  }

  // False: to stop.
  bool WaitForConnection() {
    for (;;) {
      pollfd fds[2] = {{stop_fd_, POLLIN, 0}, {listen_fd_, POLLIN, 0}};
      const int ready = poll(fds, 2, -1);
      if (ready < 0 && errno != EINTR) return false;
      if (ready <= 0) continue;
      return (fds[0].revents & POLLIN) == 0;
    }
  }

  bool WaitForStop(int timeout_ms) {
    pollfd fd = {stop_fd_, POLLIN, 0};
    return poll(&fd, 1, timeout_ms) > 0;
  }

  const int listen_fd_;
  const int stop_fd_;
  OnConnection on_connection_;
  std::thread thread_;
};

Listener::Listener(std::string address, int fd, std::string socket_path)
    : address_(std::move(address)), fd_(fd), socket_path_(std::move(socket_path)) {}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Bind(const std::string& address) {
  absl::string_view path = address;
  if (absl::ConsumePrefix(&path, "unix:")) {
    auto fd = BindUnix(address, std::string(path));
    if (!fd.ok()) return fd.status();
    return std::unique_ptr<Listener>(new Listener(address, *fd, std::string(path)));
  }
  std::string bound;
  auto fd = BindTcp(address, bound);
  if (!fd.ok()) return fd.status();
  return std::unique_ptr<Listener>(new Listener(bound, *fd, ""));
}

Listener::~Listener() { Stop(); }

void Listener::Start(OnConnection on_connection) {
  loop_ = std::make_unique<Loop>(fd_, std::move(on_connection));
}

void Listener::Stop() {
  loop_.reset();
  if (fd_ < 0) return;
  close(fd_);
  fd_ = -1;
  if (!socket_path_.empty()) unlink(socket_path_.c_str());
}

}  // namespace odmoe
