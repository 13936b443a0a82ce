#include "services/inference/service/request_counters.h"

#include <algorithm>

#include "absl/time/clock.h"

namespace odmoe {

namespace {

uint64_t WholeMicros(absl::Duration duration) {
  return static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Microseconds(duration)));
}

uint64_t WholeMicros(double milliseconds) {
  return WholeMicros(absl::Milliseconds(milliseconds));
}

// One more of a kind that ended so.
void CountOutcome(RequestTotals& totals, RequestKind kind, absl::StatusCode code) {
  const auto number = static_cast<size_t>(code);
  ++totals.outcomes[static_cast<size_t>(kind)]
                   [number < RequestTotals::kCodes ? number : size_t(absl::StatusCode::kUnknown)];
}

}  // namespace

bool RequestCounters::Admit(RequestKind kind) {
  absl::MutexLock lock(&mutex_);
  if (totals_.waiting + totals_.running < max_calls_) {
    ++totals_.waiting;
    return true;
  }
  CountOutcome(totals_, kind, absl::StatusCode::kResourceExhausted);
  return false;
}

RequestTotals RequestCounters::Totals() const {
  absl::MutexLock lock(&mutex_);
  return totals_;
}

RequestCounters::Request::Request(RequestCounters& counters, RequestKind kind)
    : counters_(counters), kind_(kind), arrived_(absl::Now()) {}

RequestCounters::Request::~Request() {
  const uint64_t took_us = WholeMicros(absl::Now() - arrived_);
  absl::MutexLock lock(&counters_.mutex_);
  RequestTotals& totals = counters_.totals_;
  --(started_ ? totals.running : totals.waiting);
  ++totals.ended;
  CountOutcome(totals, kind_, code_);
  if (code_ == absl::StatusCode::kOk) totals.request_us.Add(took_us);
}

absl::Status RequestCounters::Request::End(absl::Status status) {
  code_ = status.code();
  return status;
}

void RequestCounters::Request::Start() {
  if (started_) return;
  started_ = true;
  absl::MutexLock lock(&counters_.mutex_);
  --counters_.totals_.waiting;
  ++counters_.totals_.running;
}

void RequestCounters::Request::AddCompletionToken() {
  const absl::Time now = absl::Now();
  const bool first = last_token_ == absl::InfinitePast();
  const uint64_t took_us = WholeMicros(now - (first ? arrived_ : last_token_));
  last_token_ = now;
  absl::MutexLock lock(&counters_.mutex_);
  ++counters_.totals_.completion_tokens;
  (first ? counters_.totals_.first_token_us : counters_.totals_.next_token_us).Add(took_us);
}

void RequestCounters::Request::AddCost(int64_t prompt_tokens, const Timings& timings,
                                       const ExpertUse& experts) {
  absl::MutexLock lock(&counters_.mutex_);
  RequestTotals& totals = counters_.totals_;
  totals.prompt_tokens += prompt_tokens;
  totals.experts.hits += experts.hits;
  totals.experts.misses += experts.misses;
  totals.experts.stall_ms += experts.stall_ms;
  totals.experts.bytes_read += experts.bytes_read;
  totals.experts.predicted += experts.predicted;
  totals.experts.predicted_right += experts.predicted_right;
  totals.experts.predicted_of += experts.predicted_of;
  totals.experts.executed += experts.executed;
  totals.experts.executed_bytes += experts.executed_bytes;
  totals.queue_us.Add(WholeMicros(timings.queue_ms));
  totals.prefill_us.Add(WholeMicros(timings.prefill_ms));
  if (kind_ == RequestKind::kGenerate) totals.decode_us.Add(WholeMicros(timings.decode_ms));
  totals.stall_us.Add(WholeMicros(experts.stall_ms));
}

}  // namespace odmoe
