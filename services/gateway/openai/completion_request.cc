#include "services/gateway/openai/completion_request.h"

#include <limits>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/formats/json.h"
#include "services/gateway/openai/api_error.h"
#include "services/gateway/openai/json_members.h"

namespace odmoe {
namespace {

using nlohmann::json;

constexpr int64_t kMaxTokenId = std::numeric_limits<TokenId>::max();

const std::unordered_set<std::string>& KnownMembers() {
  static const auto* const names = new std::unordered_set<std::string>{
      "model",   "prompt",         "max_tokens",       "temperature",       "top_p",
      "top_k",   "min_p",          "seed",             "stop",              "n",
      "echo",    "logprobs",       "stream",           "stream_options",    "user",
      "suffix",  "best_of",        "logit_bias",       "frequency_penalty", "presence_penalty",
      "ignore_eos"};
  return *names;
}

void CheckMembers(const json& body, JsonMembers& members) {
  if (!body.is_object()) return;
  for (const auto& [name, value] : body.items()) {
    if (KnownMembers().count(name) == 0) {
      const std::string shown = name.substr(0, 64);
      return members.Fail(InvalidParam(shown, "is not a member this API knows"));
    }
  }
}

absl::StatusOr<std::vector<TokenId>> ParseTokens(const json& array) {
  std::vector<TokenId> tokens;
  tokens.reserve(array.size());
  for (const json& token : array) {
    const bool valid = token.is_number_unsigned() && token.get<uint64_t>() <= uint64_t(kMaxTokenId);
    if (!valid) {
      return InvalidParam("prompt", absl::StrCat("token ", tokens.size(), " is a ",
                                                 token.type_name(),
                                                 ", expected an integer from 0 to ", kMaxTokenId));
    }
    tokens.push_back(token.get<TokenId>());
  }
  return tokens;
}

absl::StatusOr<Prompt> ParseOnePrompt(const json& value) {
  Prompt prompt;
  if (value.is_string()) {
    prompt.text = value.get<std::string>();
    if (prompt.text.empty()) return InvalidParam("prompt", "is empty");
    return prompt;
  }
  if (!value.is_array() || value.empty()) {
    return InvalidParam("prompt",
                        "is neither text nor tokens: expected a string, a list of token ids, or a "
                        "list of either, none of them empty");
  }
  absl::StatusOr<std::vector<TokenId>> tokens = ParseTokens(value);
  if (!tokens.ok()) return tokens.status();
  prompt.tokens = *std::move(tokens);
  return prompt;
}

void ParsePrompts(JsonMembers& members, CompletionRequest& request) {
  const json* value = members.Any("prompt");
  if (value == nullptr) return members.Fail(InvalidParam("prompt", "is missing"));
  const bool list = value->is_array() && !value->empty() && !value->front().is_number();
  if (list && value->size() > size_t{CompletionRequest::kMaxChoices}) {
    return members.Fail(InvalidParam("prompt", absl::StrCat("has ", value->size(),
                                                            " prompts, at most ",
                                                            CompletionRequest::kMaxChoices,
                                                            " are allowed")));
  }
  for (size_t i = 0; i < (list ? value->size() : 1); ++i) {
    absl::StatusOr<Prompt> prompt = ParseOnePrompt(list ? (*value)[i] : *value);
    if (!prompt.ok()) return members.Fail(prompt.status());
    request.prompts.push_back(*std::move(prompt));
  }
}

void ParseStop(JsonMembers& members, std::vector<std::string>& stop) {
  const json* value = members.Any("stop");
  if (value == nullptr) return;
  const json list = value->is_string() ? json::array({*value}) : *value;
  if (!list.is_array() || list.size() > CompletionRequest::kMaxStops) {
    return members.Fail(InvalidParam("stop", absl::StrCat("expected a string or a list of at most ",
                                                          CompletionRequest::kMaxStops)));
  }
  for (const json& entry : list) {
    const auto* text = entry.get_ptr<const std::string*>();
    if (text == nullptr || text->empty() || text->size() > CompletionRequest::kMaxStopBytes) {
      return members.Fail(InvalidParam(
          "stop", absl::StrCat("expected strings of 1 to ", CompletionRequest::kMaxStopBytes,
                               " bytes")));
    }
    stop.push_back(*text);
  }
}

void ParseSampling(JsonMembers& members, Sampling& sampling) {
  sampling.temperature =
      float(members.Number("temperature", 1.0, 0.0, CompletionRequest::kMaxTemperature));
  sampling.top_p = float(members.Number("top_p", 1.0, 0.0, 1.0));
  if (!(sampling.top_p > 0.0f)) members.Fail(InvalidParam("top_p", "is not above 0"));
  sampling.min_p = float(members.Number("min_p", 0.0, 0.0, 1.0));
  if (!(sampling.min_p < 1.0f)) members.Fail(InvalidParam("min_p", "is not below 1"));
  // -1 is how some clients say "no limit".
  const int64_t top_k =
      members.Integer("top_k", 0, -1, std::numeric_limits<decltype(sampling.top_k)>::max());
  sampling.top_k = top_k < 0 ? 0 : int32_t(top_k);
  if (members.Has("seed")) {
    sampling.seed = uint64_t(members.Integer("seed", 0, std::numeric_limits<int64_t>::min(),
                                             std::numeric_limits<int64_t>::max()));
  }
}

void ParseStreamOptions(JsonMembers& members, CompletionRequest& request) {
  request.stream = members.Bool("stream", false);
  const json* value = members.Any("stream_options");
  if (value == nullptr) return;
  if (!request.stream) {
    return members.Fail(InvalidParam("stream_options", "is only for \"stream\": true"));
  }
  if (!value->is_object()) {
    return members.Fail(InvalidParam("stream_options", "is not an object"));
  }
  for (const auto& [name, unused] : value->items()) {
    if (name != "include_usage") {
      return members.Fail(InvalidParam("stream_options", "has a member other than include_usage"));
    }
  }
  JsonMembers options(*value);
  request.include_usage = options.Bool("include_usage", false);
  members.Fail(options.status());
}

// Members that would change the answer in a way this server cannot; their neutral values pass.
void RefuseUnsupported(JsonMembers& members, int n) {
  for (const char* penalty : {"frequency_penalty", "presence_penalty"}) {
    if (members.Number(penalty, 0.0, -2.0, 2.0) != 0.0) {
      members.Fail(InvalidParam(penalty, "is not supported; only 0 is"));
    }
  }
  if (!members.String("suffix").empty()) {
    members.Fail(InvalidParam("suffix", "is not supported"));
  }
  if (const json* bias = members.Any("logit_bias"); bias != nullptr && !bias->empty()) {
    members.Fail(InvalidParam("logit_bias", "is not supported"));
  }
  if (members.Integer("best_of", n, 1, CompletionRequest::kMaxChoices) != n) {
    members.Fail(InvalidParam("best_of", "is not supported unless it equals n"));
  }
}

}  // namespace

absl::StatusOr<CompletionRequest> ParseCompletionRequest(absl::string_view body) {
  absl::StatusOr<json> parsed = ParseJson(body, "the request's body");
  if (!parsed.ok()) return parsed.status();
  JsonMembers members(*parsed);
  CompletionRequest request;
  CheckMembers(*parsed, members);
  if (!members.status().ok()) return members.status();
  request.model = members.String("model");
  members.String("user");
  ParsePrompts(members, request);
  ParseSampling(members, request.generate.sampling);
  ParseStop(members, request.generate.stop);
  ParseStreamOptions(members, request);
  request.generate.max_tokens =
      int32_t(members.Integer("max_tokens", 16, 1, std::numeric_limits<int32_t>::max()));
  request.generate.ignore_eos = members.Bool("ignore_eos", false);
  request.n = int(members.Integer("n", 1, 1, CompletionRequest::kMaxChoices));
  request.echo = members.Bool("echo", false);
  if (members.Has("logprobs")) {
    request.logprobs = int(members.Integer("logprobs", 0, 0, CompletionRequest::kMaxLogprobs));
    request.generate.logprobs = true;
    request.generate.top_logprobs = *request.logprobs;
  }
  RefuseUnsupported(members, request.n);
  if (request.echo && request.logprobs) {
    members.Fail(InvalidParam("echo", "together with logprobs is not supported"));
  }
  if (int(request.prompts.size()) * request.n > CompletionRequest::kMaxChoices) {
    members.Fail(InvalidParam(
        "n", absl::StrCat(request.prompts.size(), " prompts times n = ", request.n, " exceed ",
                          CompletionRequest::kMaxChoices, " choices")));
  }
  if (!members.status().ok()) return members.status();
  return request;
}

}  // namespace odmoe
