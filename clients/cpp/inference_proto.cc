#include "clients/cpp/inference_proto.h"

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"

namespace odmoe::inference_client {
namespace {

namespace v1 = ::odmoe::inference::v1;

uint64_t Count(int64_t count) { return static_cast<uint64_t>(std::max<int64_t>(count, 0)); }

double Milliseconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) * 1e3 + duration.nanos() / 1e6;
}

Timings FromProto(const v1::Timings& timings) {
  return {.queue_ms = Milliseconds(timings.queue()),
          .prefill_ms = Milliseconds(timings.prefill()),
          .decode_ms = Milliseconds(timings.decode()),
          .tokens_per_second = timings.tokens_per_second()};
}

ExpertUse FromProto(const v1::ExpertUse& use) {
  return {.hits = Count(use.hits()),
          .misses = Count(use.misses()),
          .stall_ms = Milliseconds(use.stall()),
          .bytes_read = Count(use.bytes_read()),
          .predicted = Count(use.predicted()),
          .predicted_right = Count(use.predicted_right()),
          .predicted_of = Count(use.predicted_of()),
          .executed = Count(use.executed()),
          .executed_bytes = Count(use.executed_bytes())};
}

absl::StatusOr<FinishReason> FromProto(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return FinishReason::kStop;
    case v1::FINISH_REASON_LENGTH:
      return FinishReason::kLength;
    case v1::FINISH_REASON_CANCELLED:
      return FinishReason::kCancelled;
    default:
      return absl::InternalError(
          absl::StrFormat("the service ended a generation for reason %d, which this client does "
                          "not know; a newer client is needed", int{reason}));
  }
}

}  // namespace

v1::Prompt ToProto(const Prompt& prompt) {
  v1::Prompt message;
  // Neither text nor tokens is an empty text, which the service refuses by that name.
  if (prompt.text.empty() && !prompt.tokens.empty()) {
    message.mutable_tokens()->mutable_ids()->Add(prompt.tokens.begin(), prompt.tokens.end());
  } else {
    message.set_text(prompt.text);
  }
  message.set_no_special(!prompt.tokenize.add_special);
  message.set_no_parse_special(!prompt.tokenize.parse_special);
  return message;
}

v1::Sampling ToProto(const Sampling& sampling) {
  v1::Sampling message;
  message.set_temperature(sampling.temperature);
  message.set_top_k(sampling.top_k);
  message.set_top_p(sampling.top_p);
  message.set_min_p(sampling.min_p);
  if (sampling.seed.has_value()) message.set_seed(*sampling.seed);
  return message;
}

v1::GenerateRequest ToProto(const GenerateRequest& request) {
  v1::GenerateRequest message;
  *message.mutable_prompt() = ToProto(request.prompt);
  message.set_max_tokens(request.max_tokens);
  *message.mutable_sampling() = ToProto(request.sampling);
  for (const std::string& stop : request.stop) message.add_stop(stop);
  message.set_logprobs(request.logprobs);
  message.set_top_logprobs(request.top_logprobs);
  message.set_ignore_eos(request.ignore_eos);
  return message;
}

ModelInfo FromProto(const v1::Model& model) {
  ModelInfo info;
  info.name = model.name();
  info.architecture = model.architecture();
  info.digest = model.digest();
  info.layer_count = model.layer_count();
  info.expert_count = model.expert_count();
  info.experts_per_token = model.experts_per_token();
  info.vocabulary_size = model.vocabulary_size();
  info.context_length = model.context_length();
  info.base_bytes = Count(model.base_bytes());
  info.expert_bytes = Count(model.expert_bytes());
  info.chat_template = model.chat_template();
  return info;
}

TokenEvent FromProto(const v1::GeneratedToken& token) {
  TokenEvent event;
  event.token = token.token();
  event.text = token.text();
  event.logprob = token.logprob();
  for (const v1::TokenLogprob& top : token.top_logprobs()) {
    event.top_logprobs.emplace_back(top.token(), top.logprob());
  }
  return event;
}

absl::StatusOr<GenerateSummary> FromProto(const v1::GenerateSummary& message) {
  GenerateSummary summary;
  ODMOE_ASSIGN_OR_RETURN(summary.finish_reason, FromProto(message.finish_reason()));
  summary.tail = message.tail();
  summary.prompt_tokens = message.prompt_tokens();
  summary.completion_tokens = message.completion_tokens();
  summary.timings = FromProto(message.timings());
  summary.experts = FromProto(message.experts());
  return summary;
}

absl::StatusOr<ScoreResult> FromProto(const v1::ScoreResponse& response) {
  if (response.tokens_size() != response.logprobs_size() + 1) {
    return absl::InternalError(
        absl::StrFormat("the service sent %d log-probabilities for %d tokens, expected one fewer",
                        response.logprobs_size(), response.tokens_size()));
  }
  ScoreResult result;
  result.tokens.assign(response.tokens().begin(), response.tokens().end());
  result.logprobs.push_back(std::numeric_limits<double>::quiet_NaN());
  result.logprobs.insert(result.logprobs.end(), response.logprobs().begin(),
                         response.logprobs().end());
  result.perplexity = response.perplexity();
  for (const v1::LayerChoices& layer : response.layers()) {
    auto& tokens = result.experts[layer.layer()];
    for (const v1::ExpertChoice& choice : layer.tokens()) {
      tokens.emplace_back(choice.experts().begin(), choice.experts().end());
    }
  }
  result.timings = FromProto(response.timings());
  result.expert_use = FromProto(response.experts());
  return result;
}

InferenceStats FromProto(const v1::StatsResponse& message) {
  InferenceStats stats;
  stats.requests_running = message.requests_running();
  stats.requests_waiting = message.requests_waiting();
  stats.requests = message.requests();
  stats.prompt_tokens = message.prompt_tokens();
  stats.completion_tokens = message.completion_tokens();
  stats.experts = FromProto(message.experts());
  stats.peak_rss_bytes = Count(message.peak_rss_bytes());
  stats.uptime =
      absl::Seconds(message.uptime().seconds()) + absl::Nanoseconds(message.uptime().nanos());
  return stats;
}

}  // namespace odmoe::inference_client
