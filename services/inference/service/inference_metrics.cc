#include "services/inference/service/inference_metrics.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/core/http/metric_families.h"

namespace odmoe {
namespace {

using Type = MetricFamilies::Type;

constexpr double kMicrosecond = 1e-6;

void AddOutcomes(const RequestTotals& totals, MetricFamilies& families) {
  families.Begin(Type::Counter, "requests_total", "Requests by method and how they ended");
  for (size_t kind = 0; kind < totals.outcomes.size(); ++kind) {
    for (size_t number = 0; number < RequestTotals::kCodes; ++number) {
      const auto code = static_cast<absl::StatusCode>(number);
      const int64_t count = totals.outcomes[kind][number];
      // What went well is told from the start: a share of errors needs it to divide by.
      if (count == 0 && code != absl::StatusCode::kOk) continue;
      families.Add({{"method", kRequestKindNames[kind]}, {"code", absl::StatusCodeToString(code)}},
                   static_cast<double>(count));
    }
  }
}

void AddExperts(const ExpertUse& use, MetricFamilies& families) {
  const auto add = [&](const char* name, const char* help, double value) {
    families.AddOne(Type::Counter, name, help, value);
  };
  add("expert_hits_total", "Experts pinned without waiting", double(use.hits));
  add("expert_misses_total", "Experts waited for", double(use.misses));
  add("expert_stall_seconds_total", "Time forward passes waited for experts", use.stall_ms * 1e-3);
  add("expert_read_bytes_total", "Bytes the store read while requests ran",
      double(use.bytes_read));
  add("experts_executed_total", "Experts computed on another host", double(use.executed));
  add("experts_executed_bytes_total", "Sent for those and received", double(use.executed_bytes));
  add("experts_predicted_total", "Experts named by the predictor", double(use.predicted));
  add("experts_predicted_right_total", "Chosen experts that had been predicted",
      double(use.predicted_right));
  add("experts_predictable_total", "Chosen experts where there was a prediction",
      double(use.predicted_of));
}

void AddLatencies(const RequestTotals& totals, MetricFamilies& families) {
  const auto add = [&](const char* name, const char* help, const LogHistogram& histogram) {
    families.Begin(Type::Histogram, name, help);
    families.Add({}, histogram, kMicrosecond, /*every=*/1);
  };
  add("time_to_first_token_seconds", "From a request's arrival to its first token",
      totals.first_token_us);
  add("inter_token_latency_seconds", "Between two tokens of one request", totals.next_token_us);
  add("e2e_request_latency_seconds", "From a request's arrival to its end", totals.request_us);
  add("request_queue_time_seconds", "Of a request, waiting to be let in", totals.queue_us);
  add("request_prefill_time_seconds", "Of a request, the prompt", totals.prefill_us);
  add("request_decode_time_seconds", "Of a generation, its tokens", totals.decode_us);
  add("request_expert_stall_seconds", "Of a request, waiting for experts", totals.stall_us);
}

}  // namespace

std::string InferenceMetricsText(const RequestTotals& totals,
                                 const std::optional<ModelInfo>& model) {
  MetricFamilies families("odmoe_inference_");
  families.Begin(Type::Gauge, "model_info", "1 for the loaded model");
  if (model.has_value()) {
    families.Add({{"model", model->name},
                  {"architecture", model->architecture},
                  {"digest", model->digest}},
                 1.0);
  }
  families.AddOne(Type::Gauge, "num_requests_running", "Requests under way",
                  double(totals.running));
  families.AddOne(Type::Gauge, "num_requests_waiting", "Requests that wait to be let in",
                  double(totals.waiting));
  AddOutcomes(totals, families);
  families.AddOne(Type::Counter, "prompt_tokens_total",
                  "Prompt tokens processed, of requests that ended well",
                  double(totals.prompt_tokens));
  families.AddOne(Type::Counter, "generation_tokens_total", "Tokens generated",
                  double(totals.completion_tokens));
  AddExperts(totals.experts, families);
  AddLatencies(totals, families);
  return families.Text();
}

}  // namespace odmoe
