// A listening socket and the thread that accepts on it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace odmoe {

// Accepts connections until destroyed, and survives what accept() can fail with: out of descriptors
// or memory it waits and tries again. Connections that would take of the last descriptors
// (InDescriptorReserve) are closed at once. Thread-safe.
class Listener {
 public:
  // Takes over a connected, non-blocking, close-on-exec socket. Runs on the accept thread.
  using OnConnection = std::function<void(int fd)>;

  // Binds `address`, "HOST:PORT" (an IPv4 address, a bracketed IPv6 address or "localhost") or
  // "unix:/path". INVALID_ARGUMENT: no such form. UNAVAILABLE: cannot be bound, with the reason.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(const std::string& address);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Starts accepting; once.
  void Start(OnConnection on_connection);
  // Stops accepting and closes the socket; returns when no OnConnection runs any more.
  void Stop();
  // What was bound, with the real port.
  const std::string& address() const { return address_; }

 private:
  class Loop;
  Listener(std::string address, int fd, std::string socket_path);
  std::string address_;
  int fd_;
  std::string socket_path_;  // to be removed at the end, or ""
  std::unique_ptr<Loop> loop_;
};

}  // namespace odmoe
