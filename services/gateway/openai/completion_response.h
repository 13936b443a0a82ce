// The answers to POST /v1/completions: whole ones and the chunks of a stream.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// What a token's text is where the token is no whole UTF-8: "bytes:\xe2\x80".
std::string TokenText(absl::string_view piece);

// OpenAI's logprobs object, grown token by token.
struct ChoiceLogprobs {
  std::vector<std::string> tokens;
  std::vector<double> token_logprobs;
  std::vector<std::vector<std::pair<std::string, double>>> top_logprobs;
  std::vector<int64_t> text_offsets;  // in characters of the continuation
};

struct Choice {
  int index = 0;
  std::string text;
  std::optional<ChoiceLogprobs> logprobs;
  std::optional<FinishReason> finish_reason;
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
};

// What the choices of one request cost together.
struct RequestCost {
  Timings timings;  // times are sums; tokens_per_second is of all decoding
  ExpertUse experts;

  void Add(const GenerateSummary& summary);

 private:
  double decoded_tokens_ = 0.0;
};

// One answer, or one chunk.
struct CompletionMessage {
  enum class UsageMember { kAbsent, kNull, kPresent };

  std::string id;     // "cmpl-..."
  int64_t created = 0;  // seconds since 1970
  std::string model;
  std::vector<Choice> choices;
  UsageMember usage_member = UsageMember::kAbsent;
  Usage usage;
  std::optional<RequestCost> cost;
};

// As JSON, on one line. Text that is not UTF-8 is replaced.
std::string CompletionJson(const CompletionMessage& message);
// As a server-sent event: "data: ...\n\n".
std::string ServerSentEvent(absl::string_view data);

// "stop", "length"; a cancelled generation has no answer, so "cancelled" is for metrics.
std::string FinishReasonName(FinishReason reason);

// {"object":"list","data":[..]} and one model's object.
std::string ModelListJson(const ModelInfo& info, int64_t created);
std::string ModelJson(const ModelInfo& info, int64_t created);

}  // namespace odmoe
