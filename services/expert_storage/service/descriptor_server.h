// Hands descriptors to processes of the same user on this host.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace odmoe {

// A UNIX socket, mode 0600, SOCK_SEQPACKET. A client that knows a token connects, sends its 16
// bytes, and gets one byte with the token's descriptors (SCM_RIGHTS). It keeps the connection as
// long as it has them mapped; the kernel closes it when the process ends, however it ends.
// Who is another user, knows no token or says nothing for five seconds is cut off. Thread-safe.
class DescriptorServer {
 public:
  static constexpr size_t kTokenBytes = 16;

  struct Offer {
    std::vector<int> fds;  // stay open until taken or revoked; not owned
    // Asked just before the descriptors go; false: they do not.
    std::function<bool()> on_taken;
    // The taker's connection has ended.
    std::function<void()> on_released;
  };

  // Listens in `directory`, or where that is empty in a new one that only this user may enter,
  // removed at the end. UNAVAILABLE: cannot be bound.
  static absl::StatusOr<std::unique_ptr<DescriptorServer>> Start(const std::string& directory);
  virtual ~DescriptorServer() = default;

  virtual const std::string& socket_path() const = 0;
  // A token, good once.
  virtual absl::StatusOr<std::string> MakeOffer(Offer offer) = 0;
  // Forgets an offer that nobody has taken.
  virtual void Revoke(const std::string& token) = 0;
};

}  // namespace odmoe
