#include "clients/cpp/mapped_descriptor.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace odmoe {
namespace {

// As the server's.
constexpr size_t kMaxFds = 250;
constexpr size_t kMaxPacketBytes = 4096;
constexpr timeval kTimeout = {5, 0};

absl::Status SocketError(const std::string& path, const char* call) {
  return absl::UnavailableError(absl::StrCat(path, ": ", call, ": ", std::strerror(errno)));
}

absl::StatusOr<OwnedFd> ConnectTo(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' is no socket's path"));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return SocketError(path, "socket");
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof(kTimeout));
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof(kTimeout));
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::UnavailableError(absl::StrCat(
        SocketError(path, "connect").message(), "; the store's memory is for processes of its ",
        "user on its host that see its --socket-dir; a store elsewhere is read as a remote one"));
  }
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != geteuid()) {
    return absl::PermissionDeniedError(absl::StrCat(path, ": the socket is another user's"));
  }
  return fd;
}

// A packet of nothing: the other end has closed.
absl::StatusOr<DescriptorPacket> Receive(int socket, const std::string& path) {
  char bytes[kMaxPacketBytes];
  iovec data{bytes, sizeof(bytes)};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t n = -1;
  // With a timeout set, a signal's handler ends the call, whatever it was installed with.
  do {
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return SocketError(path, "recvmsg");
  DescriptorPacket packet;
  packet.bytes.assign(bytes, static_cast<size_t>(n));
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      packet.fds.emplace_back(fd);
    }
  }
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return absl::UnavailableError(absl::StrCat(
        path, ": a packet was cut short; may this process open more files (ulimit -n)?"));
  }
  return packet;
}

}  // namespace

absl::StatusOr<FetchedDescriptors> FetchDescriptors(const std::string& socket_path,
                                                    const std::string& token, size_t count) {
  FetchedDescriptors fetched;
  ODMOE_ASSIGN_OR_RETURN(fetched.socket, ConnectTo(socket_path));
  if (send(fetched.socket.get(), token.data(), token.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(token.size())) {
    return SocketError(socket_path, "send");
  }
  ODMOE_ASSIGN_OR_RETURN(DescriptorPacket packet, Receive(fetched.socket.get(), socket_path));
  if (packet.bytes.empty()) {
    return absl::PermissionDeniedError(absl::StrCat(socket_path, ": the token was refused"));
  }
  fetched.bytes = std::move(packet.bytes);
  fetched.fds = std::move(packet.fds);
  if (fetched.fds.size() != count) {
    return absl::FailedPreconditionError(absl::StrCat(
        socket_path, ": got ", fetched.fds.size(), " descriptors, expected ", count));
  }
  return fetched;
}

absl::StatusOr<DescriptorPacket> ReceivePacket(const OwnedFd& socket) {
  ODMOE_ASSIGN_OR_RETURN(DescriptorPacket packet, Receive(socket.get(), "the store's socket"));
  if (packet.bytes.empty()) return absl::UnavailableError("the store has closed its socket");
  return packet;
}

absl::StatusOr<std::unique_ptr<MappedDescriptor>> MappedDescriptor::Map(const OwnedFd& fd,
                                                                        uint64_t bytes,
                                                                        bool writable,
                                                                        std::byte* place) {
  struct stat info = {};
  if (fstat(fd.get(), &info) != 0 || bytes == 0 || static_cast<uint64_t>(info.st_size) != bytes) {
    return absl::FailedPreconditionError(absl::StrCat("shared memory of ", info.st_size,
                                                      " bytes, expected ", bytes));
  }
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return absl::FailedPreconditionError("shared memory that is not sealed against shrinking");
  }
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  const int flags = MAP_SHARED | (place != nullptr ? MAP_FIXED : 0);
  void* address = mmap(place, bytes, protection, flags, fd.get(), 0);
  if (address == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", bytes, " bytes: ", std::strerror(errno)));
  }
  // The pages are there already; this fills the page table, so that no hit faults. Where the kernel
  // does not know it, the first touches do.
  madvise(address, bytes, MADV_POPULATE_READ);
  return absl::WrapUnique(new MappedDescriptor(static_cast<std::byte*>(address), bytes,
                                               place != nullptr));
}

MappedDescriptor::~MappedDescriptor() {
  if (placed_) {
    mmap(data_, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  } else {
    munmap(data_, size_);
  }
}

}  // namespace odmoe
