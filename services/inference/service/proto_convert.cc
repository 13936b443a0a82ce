#include "services/inference/service/proto_convert.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/core/io/path_roots.h"
#include "services/core/rpc/status_codec.h"
#include "services/inference/sampling/request_check.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::inference::v1;

absl::Status ToStatus(const std::optional<FieldViolation>& violation) {
  if (!violation.has_value()) return absl::OkStatus();
  return InvalidField(violation->field, violation->description);
}

int64_t Int64(uint64_t count) {
  return static_cast<int64_t>(std::min(count, uint64_t{std::numeric_limits<int64_t>::max()}));
}

google::protobuf::Duration ToProto(double milliseconds) {
  google::protobuf::Duration duration;
  // What a clock that stepped back or a division gave is no duration.
  if (!(milliseconds > 0.0 && milliseconds < 1e15)) return duration;
  const double seconds = std::floor(milliseconds / 1e3);
  duration.set_seconds(static_cast<int64_t>(seconds));
  duration.set_nanos(static_cast<int32_t>((milliseconds - seconds * 1e3) * 1e6));
  return duration;
}

v1::Timings ToProto(const Timings& timings) {
  v1::Timings message;
  *message.mutable_queue() = ToProto(timings.queue_ms);
  *message.mutable_prefill() = ToProto(timings.prefill_ms);
  *message.mutable_decode() = ToProto(timings.decode_ms);
  message.set_tokens_per_second(timings.tokens_per_second);
  return message;
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

absl::StatusOr<Prompt> FromProto(const v1::Prompt& message) {
  Prompt prompt;
  prompt.tokenize = {.add_special = !message.no_special(),
                     .parse_special = !message.no_parse_special()};
  switch (message.prompt_case()) {
    case v1::Prompt::kText:
      prompt.text = message.text();
      if (prompt.text.empty()) return InvalidField("prompt.text", "empty");
      return prompt;
    case v1::Prompt::kTokens:
      prompt.tokens.assign(message.tokens().ids().begin(), message.tokens().ids().end());
      if (prompt.tokens.empty()) return InvalidField("prompt.tokens.ids", "empty");
      return prompt;
    case v1::Prompt::PROMPT_NOT_SET:
      break;
  }
  return InvalidField("prompt", "neither text nor tokens");
}

Sampling FromProto(const v1::Sampling& message) {
  Sampling sampling;
  if (message.has_temperature()) sampling.temperature = message.temperature();
  sampling.top_k = message.top_k();
  if (message.has_top_p()) sampling.top_p = message.top_p();
  sampling.min_p = message.min_p();
  if (message.has_seed()) sampling.seed = message.seed();
  return sampling;
}

}  // namespace

absl::Status CheckRequest(const v1::LoadModelRequest& message) {
  if (message.path().empty() || message.path().size() > PathRoots::kMaxPathBytes) {
    return InvalidField("path", absl::StrFormat("1 to %d bytes, got %d", PathRoots::kMaxPathBytes,
                                                message.path().size()));
  }
  if (message.path()[0] != '/') return InvalidField("path", "not absolute");
  if (message.path().find('\0') != std::string::npos) return InvalidField("path", "holds a NUL");
  if (message.context_length() < 0) {
    return InvalidField("context_length",
                        absl::StrFormat("0 or more, got %d", message.context_length()));
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizeOptions> FromProto(const v1::TokenizeRequest& message) {
  ODMOE_RETURN_IF_ERROR(ToStatus(CheckText("text", message.text())));
  return TokenizeOptions{.add_special = !message.no_special(),
                         .parse_special = !message.no_parse_special()};
}

absl::StatusOr<std::vector<TokenId>> FromProto(const v1::DetokenizeRequest& message,
                                               const ModelInfo& model) {
  if (static_cast<size_t>(message.tokens_size()) > kMaxDetokenizeTokens) {
    return InvalidField("tokens", absl::StrFormat("at most %d, got %d", kMaxDetokenizeTokens,
                                                  message.tokens_size()));
  }
  std::vector<TokenId> tokens(message.tokens().begin(), message.tokens().end());
  ODMOE_RETURN_IF_ERROR(ToStatus(CheckTokens("tokens", tokens, model)));
  return tokens;
}

absl::StatusOr<GenerateRequest> FromProto(const v1::GenerateRequest& message,
                                          const ModelInfo& model) {
  GenerateRequest request;
  ODMOE_ASSIGN_OR_RETURN(request.prompt, FromProto(message.prompt()));
  request.max_tokens = message.max_tokens();
  request.sampling = FromProto(message.sampling());
  request.stop.assign(message.stop().begin(), message.stop().end());
  request.logprobs = message.logprobs();
  request.top_logprobs = message.top_logprobs();
  request.ignore_eos = message.ignore_eos();
  ODMOE_RETURN_IF_ERROR(ToStatus(CheckGenerate(request, model)));
  return request;
}

absl::StatusOr<ScoreRequest> FromProto(const v1::ScoreRequest& message, const ModelInfo& model) {
  ScoreRequest request;
  ODMOE_ASSIGN_OR_RETURN(request.prompt, FromProto(message.prompt()));
  request.experts = message.experts();
  ODMOE_RETURN_IF_ERROR(ToStatus(CheckScore(request, model)));
  return request;
}

v1::Model ToProto(const ModelInfo& info) {
  v1::Model message;
  message.set_name(ReplaceInvalidUtf8(info.name));
  message.set_architecture(ReplaceInvalidUtf8(info.architecture));
  message.set_digest(ReplaceInvalidUtf8(info.digest));
  message.set_layer_count(info.layer_count);
  message.set_expert_count(info.expert_count);
  message.set_experts_per_token(info.experts_per_token);
  message.set_vocabulary_size(info.vocabulary_size);
  message.set_context_length(info.context_length);
  message.set_base_bytes(Int64(info.base_bytes));
  message.set_expert_bytes(Int64(info.expert_bytes));
  message.set_chat_template(ReplaceInvalidUtf8(info.chat_template));
  return message;
}

v1::GeneratedToken ToProto(const TokenEvent& event) {
  v1::GeneratedToken message;
  message.set_token(event.token);
  message.set_text(event.text);
  message.set_logprob(event.logprob);
  for (const auto& [token, logprob] : event.top_logprobs) {
    v1::TokenLogprob& top = *message.add_top_logprobs();
    top.set_token(token);
    top.set_logprob(logprob);
  }
  return message;
}

v1::GenerateSummary ToProto(const GenerateSummary& summary) {
  v1::GenerateSummary message;
  message.set_finish_reason(ToProto(summary.finish_reason));
  message.set_tail(summary.tail);
  message.set_prompt_tokens(summary.prompt_tokens);
  message.set_completion_tokens(summary.completion_tokens);
  *message.mutable_timings() = ToProto(summary.timings);
  *message.mutable_experts() = ToProto(summary.experts);
  return message;
}

v1::ScoreResponse ToProto(const ScoreResult& result) {
  v1::ScoreResponse message;
  message.mutable_tokens()->Add(result.tokens.begin(), result.tokens.end());
  // The first token's, which has none, is not sent.
  for (size_t i = 1; i < result.logprobs.size(); ++i) message.add_logprobs(result.logprobs[i]);
  message.set_perplexity(result.perplexity);
  for (const auto& [layer, tokens] : result.experts) {
    v1::LayerChoices& choices = *message.add_layers();
    choices.set_layer(layer);
    for (const std::vector<int32_t>& experts : tokens) {
      choices.add_tokens()->mutable_experts()->Add(experts.begin(), experts.end());
    }
  }
  *message.mutable_timings() = ToProto(result.timings);
  *message.mutable_experts() = ToProto(result.expert_use);
  return message;
}

v1::ExpertUse ToProto(const ExpertUse& use) {
  v1::ExpertUse message;
  message.set_hits(Int64(use.hits));
  message.set_misses(Int64(use.misses));
  *message.mutable_stall() = ToProto(use.stall_ms);
  message.set_bytes_read(Int64(use.bytes_read));
  message.set_predicted(Int64(use.predicted));
  message.set_predicted_right(Int64(use.predicted_right));
  message.set_predicted_of(Int64(use.predicted_of));
  message.set_executed(Int64(use.executed));
  message.set_executed_bytes(Int64(use.executed_bytes));
  return message;
}

}  // namespace odmoe
