#include "services/inference/sampling/request_check.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/core/base/utf8.h"

namespace odmoe {
namespace {

using Violation = std::optional<FieldViolation>;

constexpr float kMaxTemperature = 100.0f;

std::string Got(float value) { return absl::StrFormat("got %g", value); }

Violation CheckStops(const std::vector<std::string>& stops) {
  if (stops.size() > GenerateRequest::kMaxStops) {
    return FieldViolation{"stop", absl::StrFormat("at most %d strings, got %d",
                                                  GenerateRequest::kMaxStops, stops.size())};
  }
  for (size_t i = 0; i < stops.size(); ++i) {
    const std::string field = absl::StrCat("stop[", i, "]");
    if (stops[i].empty() || stops[i].size() > kMaxStopBytes) {
      return FieldViolation{
          field, absl::StrFormat("1 to %d bytes, got %d", kMaxStopBytes, stops[i].size())};
    }
    if (Violation text = CheckText(field, stops[i])) return text;
  }
  return std::nullopt;
}

Violation CheckLogprobs(const GenerateRequest& request) {
  if (request.top_logprobs < 0 || request.top_logprobs > GenerateRequest::kMaxTopLogprobs) {
    return FieldViolation{"top_logprobs",
                          absl::StrFormat("0 to %d, got %d", GenerateRequest::kMaxTopLogprobs,
                                          request.top_logprobs)};
  }
  if (request.top_logprobs > 0 && !request.logprobs) {
    return FieldViolation{"top_logprobs", "needs logprobs"};
  }
  return std::nullopt;
}

}  // namespace

absl::Status FieldViolation::ToStatus() const {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", description));
}

Violation CheckText(const std::string& field, const std::string& text) {
  if (text.size() > kMaxPromptBytes) {
    return FieldViolation{
        field, absl::StrFormat("at most %d bytes, got %d", kMaxPromptBytes, text.size())};
  }
  const size_t invalid = FirstInvalidUtf8(text);
  if (invalid != text.size()) {
    return FieldViolation{field, absl::StrFormat("not UTF-8 at byte %d", invalid)};
  }
  return std::nullopt;
}

Violation CheckTokens(const std::string& field, const std::vector<TokenId>& tokens,
                      const ModelInfo& model) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= model.vocabulary_size) {
      return FieldViolation{absl::StrCat(field, "[", i, "]"),
                            absl::StrFormat("token 0 to %d, got %d", model.vocabulary_size - 1,
                                            tokens[i])};
    }
  }
  return std::nullopt;
}

Violation CheckPrompt(const Prompt& prompt, const ModelInfo& model) {
  if (prompt.text.empty() == prompt.tokens.empty()) {
    return FieldViolation{"prompt", prompt.text.empty() ? "empty: neither text nor tokens"
                                                        : "both text and tokens"};
  }
  if (!prompt.text.empty()) return CheckText("prompt.text", prompt.text);
  if (prompt.tokens.size() > static_cast<size_t>(model.context_length)) {
    return FieldViolation{"prompt.tokens.ids",
                          absl::StrFormat("at most %d tokens, the context length, got %d",
                                          model.context_length, prompt.tokens.size())};
  }
  return CheckTokens("prompt.tokens.ids", prompt.tokens, model);
}

// Comparisons are written so that a NaN fails them.
Violation CheckSampling(const Sampling& sampling) {
  if (!(sampling.temperature >= 0.0f && sampling.temperature <= kMaxTemperature)) {
    return FieldViolation{"sampling.temperature", "0 to 100, " + Got(sampling.temperature)};
  }
  if (sampling.top_k < 0) {
    return FieldViolation{"sampling.top_k", absl::StrFormat("0 or more, got %d", sampling.top_k)};
  }
  if (!(sampling.top_p > 0.0f && sampling.top_p <= 1.0f)) {
    return FieldViolation{"sampling.top_p", "above 0, at most 1, " + Got(sampling.top_p)};
  }
  if (!(sampling.min_p >= 0.0f && sampling.min_p < 1.0f)) {
    return FieldViolation{"sampling.min_p", "0 or more, below 1, " + Got(sampling.min_p)};
  }
  return std::nullopt;
}

Violation CheckGenerate(const GenerateRequest& request, const ModelInfo& model) {
  if (Violation prompt = CheckPrompt(request.prompt, model)) return prompt;
  if (request.max_tokens < 1 || request.max_tokens > model.context_length) {
    return FieldViolation{"max_tokens", absl::StrFormat("1 to %d, the context length, got %d",
                                                        model.context_length, request.max_tokens)};
  }
  if (Violation sampling = CheckSampling(request.sampling)) return sampling;
  if (Violation stops = CheckStops(request.stop)) return stops;
  return CheckLogprobs(request);
}

Violation CheckScore(const ScoreRequest& request, const ModelInfo& model) {
  return CheckPrompt(request.prompt, model);
}

}  // namespace odmoe
