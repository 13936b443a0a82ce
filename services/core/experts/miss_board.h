// Where the misses of one batch are answered: written by whoever serves them, awaited by the batch.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/core/experts/pin_page.h"

namespace odmoe {

// Shared by a batch and its server, since either may end first. A slot that is delivered is pinned
// in the page, and the board owns that pin: it drops the pins of a batch that is gone. The memory
// of the page outlives the board. Thread-safe.
class MissBoard {
 public:
  MissBoard(PinPage page, size_t misses) : page_(page), outcomes_(misses) {}

  // Answers miss `i`, once; further answers to it only drop their pin.
  void Deliver(size_t i, absl::StatusOr<uint32_t> slot);
  // Answers whatever is not answered yet.
  void FailRest(const absl::Status& status);

  bool Ready(size_t i) const;
  // The answer to miss `i`, or nothing when the deadline passes first.
  std::optional<absl::StatusOr<uint32_t>> Await(size_t i, absl::Time deadline) const;
  // The batch is gone: drops its pins, those still to come too. True: some miss had no answer yet.
  bool Abandon();

 private:
  PinPage page_;
  mutable absl::Mutex mutex_;
  std::vector<std::optional<absl::StatusOr<uint32_t>>> outcomes_ ABSL_GUARDED_BY(mutex_);
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace odmoe
