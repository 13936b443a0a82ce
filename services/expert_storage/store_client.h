// A client of the caching store, as the store sees it.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/core/experts/pin_page.h"
#include "services/core/experts/segment_message.h"
#include "services/core/experts/store_telemetry.h"
#include "services/expert_storage/arena/shared_region.h"

namespace odmoe {

struct PendingDemand;

// The way to a client's process, to say which segments of the arena it is to map. Thread-safe.
class SegmentChannel {
 public:
  virtual ~SegmentChannel() = default;
  // Descriptors stay the caller's. False: the process is gone, or takes nothing more.
  virtual bool Send(const SegmentMessage& message, absl::Span<const int> fds) = 0;
};

// The in-process caller, or a session of another process. What is not const is the store's, under
// its lock.
struct StoreClient {
  StoreClient(uint64_t id, std::string name, int32_t tenant, std::unique_ptr<SharedRegion> region,
              PinPage page, size_t layers)
      : id(id), name(std::move(name)), tenant(tenant), region(std::move(region)), page(page),
        layer_clocks(layers, 0) {}

  const uint64_t id;       // never used again in this store
  const std::string name;  // as the client calls itself
  const int32_t tenant;    // entry of the store's TenantTable
  const std::unique_ptr<SharedRegion> region;
  const PinPage page;

  enum class Kind {
    kSession,  // another process
    kOwn,      // callers in the store's process
    kStreams,  // all that is being sent to other hosts
    kExecute,  // all that is being computed for other hosts
  };
  Kind kind = Kind::kOwn;
  uint64_t granted = 0;  // experts of admitted demands, not answered yet
  std::deque<std::shared_ptr<PendingDemand>> deferred;  // demands to be admitted, in order
  // Slots it may hold, and the most it may have held since it was last seen to hold no more than
  // that: more, nobody pins who keeps to the contract of the page.
  uint64_t slot_limit = PinPage::kNoLimit;
  uint64_t most_allowed = PinPage::kNoLimit;
  // Outcomes on their way to the client's process. Whoever sends them counts.
  std::atomic<uint64_t> undelivered{0};

  uint64_t ring_position = 0;          // accesses of the page's ring already taken
  uint64_t ring_due = 0;               // and those there were at the store's last look
  UseCounters use;                     // but for the page's hits and stall
  std::vector<uint64_t> layer_clocks;  // the demand clock at the last demand, by catalog layer
  int32_t last_layer = -1;             // entry of the catalog's, demanded last
  uint64_t passes = 0;                 // how often a lower layer followed a higher one
  bool open = true;                    // the session has not ended
  bool mapped = false;                 // the process may still have the page mapped
  // While it has: how to tell it of segments, whether it has been told of those there were at
  // first, and the last message it has answered.
  std::shared_ptr<SegmentChannel> channel;
  bool welcomed = false;
  uint64_t acknowledged = 0;
  // Ends the session of a client that does not answer. Called without a lock.
  std::function<void(absl::Status)> expel;
};

}  // namespace odmoe
