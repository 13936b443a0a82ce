// Which requests are let in: as many as the memory for their KV caches allows, the rest wait.
#pragma once

#include <cstdint>
#include <list>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// A number of bytes shared out in the order of asking. Thread-safe.
class Admission {
 public:
  // Bytes a request may use until its destruction. Movable.
  class Grant {
   public:
    Grant(Admission* admission, uint64_t bytes) : admission_(admission), bytes_(bytes) {}
    Grant(Grant&& other) : admission_(other.admission_), bytes_(other.bytes_) {
      other.admission_ = nullptr;
    }
    Grant& operator=(Grant&&) = delete;
    ~Grant() {
      if (admission_ != nullptr) admission_->Return(bytes_);
    }

   private:
    Admission* admission_;
    uint64_t bytes_;
  };

  Admission(uint64_t budget_bytes, int max_waiting)
      : budget_bytes_(budget_bytes), max_waiting_(max_waiting) {}

  // Waits until `bytes` are free and nobody who asked earlier waits.
  // RESOURCE_EXHAUSTED: more than the budget, or max_waiting requests wait already. CANCELLED,
  // DEADLINE_EXCEEDED: the call ended first.
  absl::StatusOr<Grant> Admit(uint64_t bytes, const CallOptions& call);

  // Bytes granted now.
  uint64_t used_bytes() const;
  // Requests that wait now.
  int waiting() const;

 private:
  void Return(uint64_t bytes);

  const uint64_t budget_bytes_;
  const int max_waiting_;
  mutable absl::Mutex mutex_;
  uint64_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::list<int64_t> waiting_ ABSL_GUARDED_BY(mutex_);  // tickets, in order
  int64_t next_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace odmoe
