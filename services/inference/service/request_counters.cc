#include "services/inference/service/request_counters.h"

namespace odmoe {

bool RequestCounters::Admit() {
  absl::MutexLock lock(&mutex_);
  if (totals_.waiting + totals_.running >= max_calls_) return false;
  ++totals_.waiting;
  return true;
}

RequestTotals RequestCounters::Totals() const {
  absl::MutexLock lock(&mutex_);
  return totals_;
}

RequestCounters::Request::~Request() {
  absl::MutexLock lock(&counters_.mutex_);
  --(started_ ? counters_.totals_.running : counters_.totals_.waiting);
  ++counters_.totals_.ended;
}

void RequestCounters::Request::Start() {
  if (started_) return;
  started_ = true;
  absl::MutexLock lock(&counters_.mutex_);
  --counters_.totals_.waiting;
  ++counters_.totals_.running;
}

void RequestCounters::Request::AddCompletionToken() {
  absl::MutexLock lock(&counters_.mutex_);
  ++counters_.totals_.completion_tokens;
}

void RequestCounters::Request::AddCost(int64_t prompt_tokens, const ExpertUse& experts) {
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
}

}  // namespace odmoe
