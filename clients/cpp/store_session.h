// The client's end of a Session stream.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/channel.h"
#include "services/core/experts/expert_id.h"

namespace odmoe {

// A lease on a store's working set, from Open to destruction. Nothing here blocks but Open and the
// destructor. Thread-safe.
class StoreSession {
 public:
  // Told from gRPC's threads; must not block. Outlives the session.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void OnOutcome(int64_t request_id, ExpertId expert, absl::StatusOr<uint32_t> slot) = 0;
    // The stream has ended, the last call of all; `status` is never OK.
    virtual void OnLost(const absl::Status& status) = 0;
  };

  // What the store said to the attach.
  struct Attachment {
    int64_t epoch = 0;
    std::string socket_path;
    std::string token;
    uint64_t arena_bytes = 0;
    uint64_t table_bytes = 0;
    uint64_t pin_page_bytes = 0;
    uint64_t max_batch = 0;  // experts we may hold at once, by our tenant's quota; 0: not told
  };

  // Attaches to a model on a tenant's account; empty: none named. The service's error, or
  // UNAVAILABLE, or DEADLINE_EXCEEDED.
  static absl::StatusOr<std::unique_ptr<StoreSession>> Open(std::shared_ptr<grpc::Channel> channel,
                                                            const std::string& model,
                                                            const std::string& tenant,
                                                            Listener& listener,
                                                            absl::Time deadline);
  // Ends the lease, and returns when the listener is told nothing more.
  virtual ~StoreSession() = default;

  virtual const Attachment& attachment() const = 0;
  // Asks for experts that are not resident; each is answered once, unless the session is lost.
  virtual void Acquire(int64_t request_id, absl::Span<const ExpertId> experts,
                       absl::Duration timeout) = 0;
  // Dropped where the store is slow to read.
  virtual void Prefetch(absl::Span<const ExpertId> experts) = 0;
};

}  // namespace odmoe
