#include "services/expert_storage/service/descriptor_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "services/core/base/descriptor_reserve.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr size_t kMaxConnections = 1024;
constexpr absl::Duration kTokenTimeout = absl::Seconds(5);
constexpr absl::Duration kAcceptBackOff = absl::Milliseconds(100);
constexpr size_t kMaxFds = DescriptorServer::kMaxFds;
constexpr absl::string_view kDirectoryPrefix = "odmoe-expert-storage-";
constexpr absl::string_view kSocketPrefix = "expert-storage-";
// From the making of a directory or socket to somebody's listening there.
constexpr absl::Duration kStarting = absl::Seconds(10);

// The socket's own lock: a packet may be sent by any thread while the server's closes it.
class SocketPeer final : public DescriptorServer::Peer {
 public:
  explicit SocketPeer(int fd) : fd_(fd) {}
  ~SocketPeer() override { Close(); }

  bool Send(absl::string_view packet, absl::Span<const int> fds) override {
    absl::MutexLock lock(&mutex_);
    return fd_ >= 0 && SendPacket(packet, fds);
  }
  // The server's thread's alone, which closes it too.
  int fd() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return fd_; }
  void Close() {
    absl::MutexLock lock(&mutex_);
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  bool SendPacket(absl::string_view packet, absl::Span<const int> fds)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  int fd_ ABSL_GUARDED_BY(mutex_);
};

struct Connection {
  std::shared_ptr<SocketPeer> peer;
  absl::Time opened;
  std::optional<DescriptorServer::Offer> taken;
};

absl::Status SocketError(const std::string& path, const char* call) {
  return absl::UnavailableError(absl::StrCat(path, ": ", call, ": ", std::strerror(errno)));
}

bool SameUser(int fd) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

bool SocketPeer::SendPacket(absl::string_view packet, absl::Span<const int> fds) {
  if (fds.size() > kMaxFds) return false;
  iovec data{const_cast<char*>(packet.data()), packet.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  return sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(packet.size());
}

// What is in a directory and begins so, and has not been made just now: another store may be about
// to use it.
std::vector<std::string> LeftBehind(const std::filesystem::path& directory,
                                    absl::string_view prefix) {
  std::vector<std::string> paths;
  std::error_code error;
  auto entry = std::filesystem::directory_iterator(directory, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    struct stat info;
    const std::string path = entry->path().string();
    if (absl::StartsWith(entry->path().filename().string(), prefix) &&
        lstat(path.c_str(), &info) == 0 && info.st_uid == geteuid() &&
        absl::Now() - absl::TimeFromTimespec(info.st_mtim) > kStarting) {
      paths.push_back(path);
    }
  }
  return paths;
}

// Sockets of processes that were killed; nobody answers there.
void RemoveDeadSockets(const std::string& directory) {
  for (const std::string& path : LeftBehind(directory, kSocketPrefix)) {
    std::error_code error;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (!std::filesystem::is_socket(path, error) || path.size() >= sizeof(address.sun_path)) {
      continue;
    }
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 &&
        errno == ECONNREFUSED) {
      unlink(path.c_str());
    }
    close(fd);
  }
}

absl::StatusOr<std::string> PrivateDirectory() {
  std::error_code error;
  std::filesystem::path base = std::filesystem::temp_directory_path(error);
  if (error) base = "/tmp";
  // Those of stores that were killed; where one lives, its socket keeps its directory.
  for (const std::string& left : LeftBehind(base, kDirectoryPrefix)) {
    RemoveDeadSockets(left);
    rmdir(left.c_str());
  }
  std::string name = (base / absl::StrCat(kDirectoryPrefix, "XXXXXX")).string();
  if (mkdtemp(name.data()) == nullptr) return SocketError(name, "mkdtemp");
  return name;
}

class Server final : public DescriptorServer {
 public:
  Server(std::string directory, bool own_directory)
      : directory_(std::move(directory)),
        own_directory_(own_directory),
        path_(absl::StrCat(directory_, "/", kSocketPrefix, getpid(), ".socket")) {}

  ~Server() override {
    if (thread_.joinable()) {
      stopping_.store(true);
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t n = write(wake_fd_, &one, sizeof(one));
      thread_.join();
    }
    if (listen_fd_ >= 0) {
      close(listen_fd_);
      unlink(path_.c_str());
    }
    if (wake_fd_ >= 0) close(wake_fd_);
    if (own_directory_) rmdir(directory_.c_str());
  }

  absl::Status Listen() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path_.size() >= sizeof(address.sun_path)) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": longer than the ",
                                                     sizeof(address.sun_path) - 1,
                                                     " bytes a socket's path may have"));
    }
    std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
    wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0) return SocketError(path_, "eventfd");
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return SocketError(path_, "socket");
    // The mode is given before the name exists, so that nobody can get in between.
    if (fchmod(fd, S_IRUSR | S_IWUSR) != 0 ||
        bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
      const absl::Status status = SocketError(path_, "bind");
      close(fd);
      return absl::UnavailableError(absl::StrCat(
          status.message(), "; the folder must be there, and this user's to write to"));
    }
    listen_fd_ = fd;
    if (chmod(path_.c_str(), S_IRUSR | S_IWUSR) != 0) return SocketError(path_, "chmod");
    if (listen(fd, SOMAXCONN) != 0) return SocketError(path_, "listen");
    thread_ = std::thread([this] { Loop(); });
    return absl::OkStatus();
  }

  const std::string& socket_path() const override { return path_; }

  absl::StatusOr<std::string> MakeOffer(Offer offer) override {
    std::string token(kTokenBytes, '\0');
    if (getrandom(token.data(), token.size(), 0) != static_cast<ssize_t>(token.size())) {
      return absl::InternalError(absl::StrCat("getrandom: ", std::strerror(errno)));
    }
    absl::MutexLock lock(&mutex_);
    offers_[token] = std::move(offer);
    return token;
  }

  void Revoke(const std::string& token) override {
    absl::MutexLock lock(&mutex_);
    offers_.erase(token);
  }

 private:
  void Loop() {
    while (!stopping_.load()) {
      std::vector<pollfd> polled = {{wake_fd_, POLLIN, 0}};
      const bool accepting = connections_.size() < kMaxConnections && absl::Now() >= accept_after_;
      if (accepting) polled.push_back({listen_fd_, POLLIN, 0});
      const size_t first = polled.size();
      for (const Connection& connection : connections_)
        polled.push_back({connection.peer->fd(), POLLIN, 0});
      poll(polled.data(), polled.size(), NextTimeout());
      for (size_t i = connections_.size(); i-- > 0;) {
        if (polled[first + i].revents != 0 ? !OnReadable(connections_[i])
                                           : TooSlow(connections_[i])) {
          Drop(i);
        }
      }
      if (accepting && polled[1].revents != 0) AcceptAll();
    }
    while (!connections_.empty()) Drop(connections_.size() - 1);
  }

  int NextTimeout() const {
    const absl::Time now = absl::Now();
    absl::Time next = absl::InfiniteFuture();
    if (accept_after_ > now) next = accept_after_;
    for (const Connection& connection : connections_) {
      if (!connection.taken) next = std::min(next, connection.opened + kTokenTimeout);
    }
    if (next == absl::InfiniteFuture()) return -1;
    return static_cast<int>(std::max<int64_t>(0, absl::ToInt64Milliseconds(next - now) + 1));
  }

  void AcceptAll() {
    while (connections_.size() < kMaxConnections) {
      const int fd = accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd < 0) {
        // Out of descriptors, say: the listening socket stays readable, so do not spin on it.
        if (errno != EAGAIN && errno != EINTR) accept_after_ = absl::Now() + kAcceptBackOff;
        return;
      }
      if (SameUser(fd) && !InDescriptorReserve(fd)) {
        connections_.push_back({std::make_shared<SocketPeer>(fd), absl::Now(), std::nullopt});
      } else {
        close(fd);
      }
    }
  }

  static bool TooSlow(const Connection& connection) {
    return !connection.taken && absl::Now() >= connection.opened + kTokenTimeout;
  }

  // False: the connection is over.
  bool OnReadable(Connection& connection) {
    char packet[kMaxPacketBytes];
    const ssize_t n = recv(connection.peer->fd(), packet, sizeof(packet), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) return false;
    const absl::string_view said(packet, static_cast<size_t>(n));
    if (connection.taken) return connection.taken->on_packet && connection.taken->on_packet(said);
    if (said.size() != kTokenBytes) return false;
    connection.taken = TakeOffer(std::string(said));
    return connection.taken && connection.taken->on_taken(connection.peer);
  }

  std::optional<Offer> TakeOffer(const std::string& token) {
    absl::MutexLock lock(&mutex_);
    const auto found = offers_.find(token);
    if (found == offers_.end()) return std::nullopt;
    Offer offer = std::move(found->second);
    offers_.erase(found);
    return offer;
  }

  void Drop(size_t i) {
    Connection connection = std::move(connections_[i]);
    connections_.erase(connections_.begin() + static_cast<ptrdiff_t>(i));
    connection.peer->Close();
    if (connection.taken && connection.taken->on_released) connection.taken->on_released();
  }

  const std::string directory_;
  const bool own_directory_;
  const std::string path_;
  int listen_fd_ = -1;
  int wake_fd_ = -1;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
  std::vector<Connection> connections_;  // the thread's
  absl::Time accept_after_ = absl::InfinitePast();

  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Offer> offers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<DescriptorServer>> DescriptorServer::Start(
    const std::string& directory) {
  std::string used = directory;
  if (directory.empty()) {
    ODMOE_ASSIGN_OR_RETURN(used, PrivateDirectory());
  } else {
    RemoveDeadSockets(directory);
  }
  auto server = std::make_unique<Server>(used, directory.empty());
  ODMOE_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace odmoe
