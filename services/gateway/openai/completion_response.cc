#include "services/gateway/openai/completion_response.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace odmoe {
namespace {

// Members in the order they are set, as people read them.
using Json = nlohmann::ordered_json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool IsUtf8(absl::string_view text) {
  try {
    Json(std::string(text)).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

Json LogprobsJson(const ChoiceLogprobs& logprobs) {
  Json top = Json::array();
  for (const auto& alternatives : logprobs.top_logprobs) {
    Json entry = Json::object();
    for (const auto& [text, logprob] : alternatives) entry[text] = logprob;
    top.push_back(std::move(entry));
  }
  return {{"tokens", logprobs.tokens},
          {"token_logprobs", logprobs.token_logprobs},
          {"top_logprobs", std::move(top)},
          {"text_offset", logprobs.text_offsets}};
}

Json ChoiceJson(const Choice& choice) {
  return {{"index", choice.index},
          {"text", choice.text},
          {"logprobs", choice.logprobs ? LogprobsJson(*choice.logprobs) : Json(nullptr)},
          {"finish_reason",
           choice.finish_reason ? Json(FinishReasonName(*choice.finish_reason)) : Json(nullptr)}};
}

Json TimingsJson(const RequestCost& cost) {
  return {{"queue_ms", cost.timings.queue_ms},
          {"prefill_ms", cost.timings.prefill_ms},
          {"decode_ms", cost.timings.decode_ms},
          {"tokens_per_second", cost.timings.tokens_per_second},
          {"experts",
           {{"hits", cost.experts.hits},
            {"misses", cost.experts.misses},
            {"hit_rate", cost.experts.hit_rate()},
            {"stall_ms", cost.experts.stall_ms},
            {"bytes_read", cost.experts.bytes_read},
            {"predicted", cost.experts.predicted},
            {"recall", cost.experts.recall()}}}};
}

Json ModelObject(const ModelInfo& info, int64_t created) {
  return {{"id", info.name},
          {"object", "model"},
          {"created", created},
          {"owned_by", "odmoe"},
          {"architecture", info.architecture},
          {"context_length", info.context_length}};
}

}  // namespace

std::string TokenText(absl::string_view piece) {
  if (IsUtf8(piece)) return std::string(piece);
  std::string text = "bytes:";
  for (const char c : piece) {
    absl::StrAppend(&text, absl::StrFormat("\\x%02x", static_cast<unsigned char>(c)));
  }
  return text;
}

void RequestCost::Add(const GenerateSummary& summary) {
  timings.queue_ms += summary.timings.queue_ms;
  timings.prefill_ms += summary.timings.prefill_ms;
  timings.decode_ms += summary.timings.decode_ms;
  decoded_tokens_ += summary.timings.tokens_per_second * summary.timings.decode_ms / 1000.0;
  if (timings.decode_ms > 0.0) {
    timings.tokens_per_second = decoded_tokens_ * 1000.0 / timings.decode_ms;
  }
  experts.hits += summary.experts.hits;
  experts.misses += summary.experts.misses;
  experts.stall_ms += summary.experts.stall_ms;
  experts.bytes_read += summary.experts.bytes_read;
  experts.predicted += summary.experts.predicted;
  experts.predicted_right += summary.experts.predicted_right;
  experts.predicted_of += summary.experts.predicted_of;
  experts.executed += summary.experts.executed;
  experts.executed_bytes += summary.experts.executed_bytes;
}

std::string CompletionJson(const CompletionMessage& message) {
  Json json = {{"id", message.id},
               {"object", "text_completion"},
               {"created", message.created},
               {"model", message.model},
               {"choices", Json::array()}};
  for (const Choice& choice : message.choices) json["choices"].push_back(ChoiceJson(choice));
  if (message.usage_member == CompletionMessage::UsageMember::kNull) json["usage"] = nullptr;
  if (message.usage_member == CompletionMessage::UsageMember::kPresent) {
    json["usage"] = {
        {"prompt_tokens", message.usage.prompt_tokens},
        {"completion_tokens", message.usage.completion_tokens},
        {"total_tokens", message.usage.prompt_tokens + message.usage.completion_tokens}};
  }
  if (message.cost) json["timings"] = TimingsJson(*message.cost);
  return Dump(json);
}

std::string ServerSentEvent(absl::string_view data) { return absl::StrCat("data: ", data, "\n\n"); }

std::string FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kCancelled: return "cancelled";
  }
  return "unknown";
}

std::string ModelListJson(const ModelInfo& info, int64_t created) {
  return Dump({{"object", "list"}, {"data", Json::array({ModelObject(info, created)})}});
}

std::string ModelJson(const ModelInfo& info, int64_t created) {
  return Dump(ModelObject(info, created));
}

}  // namespace odmoe
