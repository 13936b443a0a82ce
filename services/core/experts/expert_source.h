// Where experts' bytes come from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/experts/expert_id.h"
#include "services/core/experts/read_control.h"
#include "services/core/experts/source_stats.h"

namespace odmoe {

// Reads experts from one model's files, or another store. Thread-safe.
class ExpertSource {
 public:
  using Done = std::function<void(absl::Status)>;

  // Destruction waits for every read under way; each `done` has run when it returns.
  virtual ~ExpertSource() = default;

  virtual const ExpertCatalog& catalog() const = 0;

  // Starts to read expert `id` into `destination`, and calls `done` exactly once, from any thread,
  // possibly before returning. The destination starts on a 4096-byte boundary, holds the expert's
  // bytes rounded up to 4096, and stays valid until then; the bytes past the expert's end are
  // unspecified. `done` does not block. `control` null: a demand, never given up.
  // NOT_FOUND: no such expert. DATA_LOSS: the device failed or the file is shorter than its
  // registry says. UNAVAILABLE: a remote store is gone. CANCELLED: `control` said so.
  // A source that cannot tell urgent reads from others, or cannot give one up, ignores `control`.
  virtual void Read(ExpertId id, absl::Span<std::byte> destination,
                    std::shared_ptr<const ReadControl> control, Done done) = 0;
  // A read that somebody waits for.
  void Read(ExpertId id, absl::Span<std::byte> destination, Done done) {
    Read(id, destination, nullptr, std::move(done));
  }

  // Bytes of reads under way from which on the device is at its full rate. Who schedules reads
  // keeps about so many under way, and no more: what waits here cannot be overtaken any more.
  virtual uint64_t desired_bytes_under_way() const { return uint64_t{16} << 20; }

  // True: Read has compared the bytes with the catalog's hash, where it has one, on their way in.
  virtual bool checks_hashes() const { return false; }

  virtual SourceStats Stats() const { return {}; }

  // Reads will land in `memory`, mapped until it is taken back: no read into it is under way then,
  // and none will come. Both may wait for a `done` to return, so for no lock that one takes.
  virtual void OfferMemory(absl::Span<std::byte> memory) { static_cast<void>(memory); }
  virtual void TakeBackMemory(absl::Span<std::byte> memory) { static_cast<void>(memory); }
};

// Read, and wait for it.
absl::Status ReadAndWait(ExpertSource& source, ExpertId id, absl::Span<std::byte> destination);

}  // namespace odmoe
