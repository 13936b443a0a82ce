#include "tests/inference/fake/alphabet_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/inference/sampling/request_check.h"
#include "services/inference/sampling/sampler.h"
#include "services/inference/sampling/text_stream.h"

namespace odmoe {
namespace {

std::vector<float> LogitsAfter(TokenId last) {
  const TokenId next = last == 'z' ? AlphabetModel::kEnd : last + 1;
  std::vector<float> logits(AlphabetModel::kEnd + 1);
  for (TokenId token = 0; token <= AlphabetModel::kEnd; ++token) {
    logits[token] = -0.75f * static_cast<float>(std::abs(token - next));
  }
  return logits;
}

absl::Status CheckCall(const CallOptions& call) {
  if (call.cancellation != nullptr && call.cancellation->cancelled()) {
    return absl::CancelledError("as asked");
  }
  if (absl::Now() >= call.deadline) return absl::DeadlineExceededError("the call's deadline");
  return absl::OkStatus();
}

}  // namespace

AlphabetModel::AlphabetModel(std::string name, int32_t context_length) {
  info_.name = std::move(name);
  info_.architecture = "alphabet";
  info_.digest = "0123abcd";
  info_.layer_count = 2;
  info_.expert_count = 4;
  info_.experts_per_token = 1;
  info_.vocabulary_size = kEnd + 1;
  info_.context_length = context_length;
  info_.base_bytes = 1000;
  info_.expert_bytes = 4000;
  info_.chat_template = "{{ messages }}";
}

int64_t AlphabetModel::tokens_drawn() const {
  absl::MutexLock lock(&mutex_);
  return drawn_;
}

absl::StatusOr<std::vector<TokenId>> AlphabetModel::Tokenize(absl::string_view text,
                                                             const TokenizeOptions& options) {
  const size_t invalid = FirstInvalidUtf8(text);
  if (invalid != text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("text is not UTF-8 at byte ", invalid));
  }
  std::vector<TokenId> tokens;
  for (char byte : text) tokens.push_back(static_cast<uint8_t>(byte));
  return tokens;
}

absl::StatusOr<std::string> AlphabetModel::Detokenize(const std::vector<TokenId>& tokens) {
  std::string text;
  for (TokenId token : tokens) {
    if (token < 0 || token > kEnd) {
      return absl::InvalidArgumentError(absl::StrCat("token ", token));
    }
    text += token == kEnd ? "<end>" : std::string(1, static_cast<char>(token));
  }
  return text;
}

absl::StatusOr<std::vector<TokenId>> AlphabetModel::PromptTokens(const Prompt& prompt) {
  std::vector<TokenId> tokens = prompt.tokens;
  if (!prompt.text.empty()) {
    ODMOE_ASSIGN_OR_RETURN(tokens, Tokenize(prompt.text, prompt.tokenize));
  }
  if (tokens.size() > static_cast<size_t>(info_.context_length)) {
    return absl::InvalidArgumentError("prompt: longer than the context");
  }
  return tokens;
}

absl::Status AlphabetModel::Start(const CallOptions& call) {
  if (on_queue) ODMOE_RETURN_IF_ERROR(on_queue());
  ODMOE_RETURN_IF_ERROR(CheckCall(call));
  if (call.on_started) call.on_started();
  return absl::OkStatus();
}

absl::StatusOr<GenerateSummary> AlphabetModel::Generate(const GenerateRequest& request,
                                                        const CallOptions& call,
                                                        const OnToken& on_token) {
  if (const auto broken = CheckGenerate(request, info_)) return broken->ToStatus();
  ODMOE_ASSIGN_OR_RETURN(const std::vector<TokenId> prompt, PromptTokens(request.prompt));
  ODMOE_RETURN_IF_ERROR(Start(call));
  const int32_t room = info_.context_length - static_cast<int32_t>(prompt.size());
  Sampler sampler(request.sampling);
  TextStream stream(request.stop);
  GenerateSummary summary;
  summary.prompt_tokens = static_cast<int32_t>(prompt.size());
  summary.timings = {
      .queue_ms = 1.5, .prefill_ms = 2.5, .decode_ms = 3.5, .tokens_per_second = 4.5};
  TokenId last = prompt.back();
  while (summary.completion_tokens < std::min(request.max_tokens, room)) {
    ODMOE_RETURN_IF_ERROR(CheckCall(call));
    if (before_token) ODMOE_RETURN_IF_ERROR(before_token(summary.completion_tokens, call));
    ODMOE_ASSIGN_OR_RETURN(
        const Draw draw, sampler.Next(LogitsAfter(last), {request.logprobs, request.top_logprobs}));
    last = draw.token;
    if (last == kEnd && !request.ignore_eos) {
      summary.finish_reason = FinishReason::kStop;
      break;
    }
    {
      absl::MutexLock lock(&mutex_);
      ++drawn_;
    }
    ++summary.completion_tokens;
    TokenEvent event;
    event.token = last;
    const char byte = static_cast<char>(last);
    event.text = stream.Append(last == kEnd ? absl::string_view() : absl::string_view(&byte, 1));
    event.logprob = draw.logprob;
    event.top_logprobs = draw.top_logprobs;
    const bool more = on_token(event);
    if (!more || stream.stopped()) {
      summary.finish_reason = more ? FinishReason::kStop : FinishReason::kCancelled;
      break;
    }
  }
  summary.tail = stream.Finish();
  summary.experts = {.hits = 3, .misses = 1, .stall_ms = 0.25, .bytes_read = 1000,
                     .predicted = 5, .predicted_right = 2, .predicted_of = 4};
  return summary;
}

absl::StatusOr<ScoreResult> AlphabetModel::Score(const ScoreRequest& request,
                                                 const CallOptions& call) {
  if (const auto broken = CheckScore(request, info_)) return broken->ToStatus();
  ScoreResult result;
  ODMOE_ASSIGN_OR_RETURN(result.tokens, PromptTokens(request.prompt));
  if (result.tokens.size() < 2) return absl::InvalidArgumentError("prompt: two tokens at least");
  ODMOE_RETURN_IF_ERROR(Start(call));
  result.logprobs = {std::numeric_limits<double>::quiet_NaN()};
  double sum = 0.0;
  for (size_t i = 1; i < result.tokens.size(); ++i) {
    result.logprobs.push_back(LogProbability(LogitsAfter(result.tokens[i - 1]), result.tokens[i]));
    sum += result.logprobs.back();
  }
  result.perplexity = std::exp(-sum / static_cast<double>(result.tokens.size() - 1));
  if (request.experts) {
    for (TokenId token : result.tokens) result.experts[1].push_back({token % info_.expert_count});
  }
  result.expert_use = {.hits = 7, .misses = 2};
  return result;
}

}  // namespace odmoe
