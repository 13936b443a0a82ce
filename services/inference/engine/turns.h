// Who computes next.
#pragma once

#include <cstdint>
#include <list>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// A lock that is handed on in the order it was asked for, so that requests that take a turn a step
// go round. Thread-safe.
class Turns {
 public:
  // The right to compute, until destruction. Movable.
  class Turn {
   public:
    explicit Turn(Turns* turns) : turns_(turns) {}
    Turn(Turn&& other) : turns_(other.turns_) { other.turns_ = nullptr; }
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (turns_ != nullptr) turns_->Pass();
    }

   private:
    Turns* turns_;
  };

  // CANCELLED, DEADLINE_EXCEEDED: the call ended first.
  absl::StatusOr<Turn> Take(const CallOptions& call);

  // Who wait now.
  int waiting() const;

 private:
  void Pass();

  mutable absl::Mutex mutex_;
  bool taken_ ABSL_GUARDED_BY(mutex_) = false;
  std::list<int64_t> waiting_ ABSL_GUARDED_BY(mutex_);  // tickets, in order
  int64_t next_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Returns once `condition` holds, with `mutex` held throughout as by Mutex::Await.
// CANCELLED, DEADLINE_EXCEEDED: the call ended first. A cancellation is noticed within 10 ms.
absl::Status AwaitUnlessEnded(absl::Mutex& mutex, const absl::Condition& condition,
                              const CallOptions& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

}  // namespace odmoe
