// Where experts' bytes come from.
#pragma once

#include <cstddef>
#include <functional>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/experts/expert_id.h"

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
  // unspecified. `done` does not block.
  // NOT_FOUND: no such expert. DATA_LOSS: the device failed or the file is shorter than its
  // registry says. UNAVAILABLE: a remote store is gone.
  virtual void Read(ExpertId id, absl::Span<std::byte> destination, Done done) = 0;
};

// Read, and wait for it.
absl::Status ReadAndWait(ExpertSource& source, ExpertId id, absl::Span<std::byte> destination);

}  // namespace odmoe
