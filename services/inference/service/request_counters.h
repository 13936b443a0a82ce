// What the service has done and is doing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/core/base/log_histogram.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

enum class RequestKind { kGenerate, kScore };
inline constexpr std::array<const char*, 2> kRequestKindNames = {"generate", "score"};

struct RequestTotals {
  static constexpr size_t kCodes = 17;  // gRPC's, 0 to 16

  int64_t running = 0;  // gauge
  int64_t waiting = 0;  // gauge
  int64_t ended = 0;    // of those let in, all outcomes
  // How requests ended, by kind and status code, those not let in among them.
  std::array<std::array<int64_t, kCodes>, kRequestKindNames.size()> outcomes = {};
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  ExpertUse experts;

  // Microseconds. Of generations, as far as they came:
  LogHistogram first_token_us;  // from the request's arrival
  LogHistogram next_token_us;   // between two tokens of one
  // Of requests that ended well:
  LogHistogram queue_us;
  LogHistogram prefill_us;
  LogHistogram decode_us;   // generations alone
  LogHistogram stall_us;    // waiting for experts, all steps of a request together
  LogHistogram request_us;  // from its arrival to its end
};

// Counts Generate and Score calls, and bounds how many there are at once. Thread-safe.
class RequestCounters {
 public:
  // `max_calls`: at once, waiting and running.
  explicit RequestCounters(int max_calls) : max_calls_(max_calls) {}

  // Lets a call in, as one that waits; a Request is to be made of it. False: there are max_calls;
  // counted as RESOURCE_EXHAUSTED.
  bool Admit(RequestKind kind);

  RequestTotals Totals() const;

  // A call that was let in: waits until Start, runs until its destruction. Owned by one thread.
  class Request {
   public:
    Request(RequestCounters& counters, RequestKind kind);
    ~Request();
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;

    void Start();
    void AddCompletionToken();
    // What a request that ended well took; of a failed one nobody knows.
    void AddCost(int64_t prompt_tokens, const Timings& timings, const ExpertUse& experts);
    // How it ended, said once before its destruction; returns that. A request that does not say has
    // ended with UNKNOWN.
    absl::Status End(absl::Status status);

   private:
    RequestCounters& counters_;
    const RequestKind kind_;
    const absl::Time arrived_;
    absl::Time last_token_ = absl::InfinitePast();
    absl::StatusCode code_ = absl::StatusCode::kUnknown;
    bool started_ = false;
  };

 private:
  const int max_calls_;
  mutable absl::Mutex mutex_;
  RequestTotals totals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace odmoe
