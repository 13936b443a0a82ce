#include "services/gateway/openai/gateway_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace odmoe {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

// A resident small model makes a token in a millisecond, one read from a slow disk in seconds.
const Buckets kTokenBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                               0.15,  0.2,    0.3,   0.5,  0.75,  1.0,  2.5,   5.0, 10.0};
const Buckets kRequestBuckets = {0.01, 0.05, 0.1,  0.25, 0.5,  1.0,   2.5,   5.0,
                                 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0};

}  // namespace

struct GatewayMetrics::State {
  prometheus::Registry registry;

  prometheus::Counter& AddCounter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
  }
  prometheus::Gauge& AddGauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
  }
  prometheus::Histogram& AddHistogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
  }

  prometheus::Family<prometheus::Counter>& http_requests =
      prometheus::BuildCounter()
          .Name("odmoe_http_requests_total")
          .Help("HTTP requests by route and status code")
          .Register(registry);
  prometheus::Family<prometheus::Counter>& requests =
      prometheus::BuildCounter()
          .Name("odmoe_requests_total")
          .Help("Completion requests by how they ended")
          .Register(registry);

  prometheus::Gauge& running =
      AddGauge("odmoe_num_requests_running", "Completion requests being generated");
  prometheus::Gauge& waiting =
      AddGauge("odmoe_num_requests_waiting", "Completion requests that wait for a thread");

  prometheus::Counter& prompt_tokens =
      AddCounter("odmoe_prompt_tokens_total", "Prompt tokens processed");
  prometheus::Counter& generation_tokens =
      AddCounter("odmoe_generation_tokens_total", "Tokens generated");
  prometheus::Counter& expert_hits =
      AddCounter("odmoe_expert_hits_total", "Experts pinned without waiting");
  prometheus::Counter& expert_misses =
      AddCounter("odmoe_expert_misses_total", "Experts waited for");
  prometheus::Counter& expert_stall = AddCounter(
      "odmoe_expert_stall_seconds_total", "Time forward passes waited for experts");
  prometheus::Counter& expert_bytes =
      AddCounter("odmoe_expert_read_bytes_total", "Expert bytes read while requests ran");
  prometheus::Counter& experts_predicted =
      AddCounter("odmoe_experts_predicted_total", "Experts named by the predictor");
  prometheus::Counter& predicted_right = AddCounter(
      "odmoe_experts_predicted_right_total", "Chosen experts that had been predicted");
  prometheus::Counter& predicted_of = AddCounter(
      "odmoe_experts_predictable_total", "Chosen experts where there was a prediction");

  prometheus::Histogram& time_to_first_token =
      AddHistogram("odmoe_time_to_first_token_seconds",
                   "From a request's arrival to its first token", kRequestBuckets);
  prometheus::Histogram& inter_token_latency = AddHistogram(
      "odmoe_inter_token_latency_seconds", "Between two tokens of one choice", kTokenBuckets);
  prometheus::Histogram& end_to_end =
      AddHistogram("odmoe_e2e_request_latency_seconds", "From a request's arrival to its end",
                   kRequestBuckets);
  prometheus::Histogram& queue_time = AddHistogram(
      "odmoe_request_queue_time_seconds", "Of one generation, waiting", kRequestBuckets);
  prometheus::Histogram& prefill_time = AddHistogram(
      "odmoe_request_prefill_time_seconds", "Of one generation, the prompt", kRequestBuckets);
  prometheus::Histogram& decode_time = AddHistogram(
      "odmoe_request_decode_time_seconds", "Of one generation, its tokens", kRequestBuckets);
};

GatewayMetrics::GatewayMetrics() : state_(std::make_unique<State>()) {}
GatewayMetrics::~GatewayMetrics() = default;

void GatewayMetrics::CountHttp(absl::string_view route, int status) {
  state_->http_requests.Add({{"route", std::string(route)}, {"code", std::to_string(status)}})
      .Increment();
}

void GatewayMetrics::SetRequests(int running, int waiting) {
  state_->running.Set(running);
  state_->waiting.Set(waiting);
}

void GatewayMetrics::ObserveTimeToFirstToken(absl::Duration duration) {
  state_->time_to_first_token.Observe(absl::ToDoubleSeconds(duration));
}

void GatewayMetrics::ObserveInterTokenLatency(absl::Duration duration) {
  state_->inter_token_latency.Observe(absl::ToDoubleSeconds(duration));
}

void GatewayMetrics::CountGeneration(const GenerateSummary& summary) {
  state_->prompt_tokens.Increment(summary.prompt_tokens);
  state_->generation_tokens.Increment(summary.completion_tokens);
  state_->expert_hits.Increment(double(summary.experts.hits));
  state_->expert_misses.Increment(double(summary.experts.misses));
  state_->expert_stall.Increment(summary.experts.stall_ms / 1000.0);
  state_->expert_bytes.Increment(double(summary.experts.bytes_read));
  state_->experts_predicted.Increment(double(summary.experts.predicted));
  state_->predicted_right.Increment(double(summary.experts.predicted_right));
  state_->predicted_of.Increment(double(summary.experts.predicted_of));
  state_->queue_time.Observe(summary.timings.queue_ms / 1000.0);
  state_->prefill_time.Observe(summary.timings.prefill_ms / 1000.0);
  state_->decode_time.Observe(summary.timings.decode_ms / 1000.0);
}

void GatewayMetrics::CountRequest(absl::string_view finished_reason, absl::Duration end_to_end) {
  state_->requests.Add({{"finished_reason", std::string(finished_reason)}}).Increment();
  state_->end_to_end.Observe(absl::ToDoubleSeconds(end_to_end));
}

std::string GatewayMetrics::Serialize() const {
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace odmoe
