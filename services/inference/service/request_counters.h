// What the service has done and is doing.
#pragma once

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

struct RequestTotals {
  int64_t running = 0;  // gauge
  int64_t waiting = 0;  // gauge
  int64_t ended = 0;    // all outcomes
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  ExpertUse experts;
};

// Counts Generate and Score calls, and bounds how many there are at once. Thread-safe.
class RequestCounters {
 public:
  // `max_calls`: at once, waiting and running.
  explicit RequestCounters(int max_calls) : max_calls_(max_calls) {}

  // Lets a call in, as one that waits; a Request is to be made of it. False: there are max_calls.
  bool Admit();

  RequestTotals Totals() const;

  // A call that was let in: waits until Start, runs until its destruction. Owned by one thread.
  class Request {
   public:
    explicit Request(RequestCounters& counters) : counters_(counters) {}
    ~Request();
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;

    void Start();
    void AddCompletionToken();
    // What a request that ended well took; of a failed one nobody knows.
    void AddCost(int64_t prompt_tokens, const ExpertUse& experts);

   private:
    RequestCounters& counters_;
    bool started_ = false;
  };

 private:
  const int max_calls_;
  mutable absl::Mutex mutex_;
  RequestTotals totals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace odmoe
