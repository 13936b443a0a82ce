// Hands descriptors to processes of the same user on this host.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace odmoe {

// A UNIX socket, mode 0600, SOCK_SEQPACKET. A client that knows a token connects, sends its 16
// bytes, and gets what the token's offer sends it: packets with descriptors (SCM_RIGHTS), now and
// later, which it may answer. It keeps the connection as long as it has any of them mapped; the
// kernel closes it when the process ends, however it ends.
// Who is another user, knows no token or says nothing for five seconds is cut off. Thread-safe.
class DescriptorServer {
 public:
  static constexpr size_t kTokenBytes = 16;
  static constexpr size_t kMaxFds = 250;  // of a packet; the kernel's bound is 253
  static constexpr size_t kMaxPacketBytes = 4096;  // from a peer

  // A connection whose peer knew its token. May outlive the connection. Thread-safe.
  class Peer {
   public:
    virtual ~Peer() = default;
    // One packet; the descriptors stay the caller's. False: the connection has ended, or the peer
    // reads nothing.
    virtual bool Send(absl::string_view packet, absl::Span<const int> fds) = 0;
  };

  // Called from one thread, which must not be held up.
  struct Offer {
    // The token has come. False: cut the peer off.
    std::function<bool(std::shared_ptr<Peer>)> on_taken;
    // What the peer says after that, in packets. False: cut it off. Null: it may say nothing.
    std::function<bool(absl::string_view)> on_packet;
    // The taker's connection has ended. Follows every on_taken.
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
