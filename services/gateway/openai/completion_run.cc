#include "services/gateway/openai/completion_run.h"

#include <algorithm>
#include <iterator>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/gateway/openai/api_error.h"

namespace odmoe {
namespace {

constexpr int kClientLeft = 499;
constexpr absl::string_view kHeartbeat = ": still working\n\n";

std::string NewCompletionId() {
  std::random_device device;
  return absl::StrFormat("cmpl-%08x%08x%08x", device(), device(), device());
}

// Characters that begin in these bytes, which may hold parts of one.
int64_t CharactersBegunIn(absl::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

void Append(ChoiceLogprobs& to, ChoiceLogprobs from) {
  const auto move_all = [](auto& into, auto& source) {
    std::move(source.begin(), source.end(), std::back_inserter(into));
  };
  move_all(to.tokens, from.tokens);
  move_all(to.token_logprobs, from.token_logprobs);
  move_all(to.top_logprobs, from.top_logprobs);
  move_all(to.text_offsets, from.text_offsets);
}

}  // namespace

int CompletionRun::Run() {
  const absl::Status status = Answer();
  const absl::Duration took = absl::FromChrono(Clock::now() - arrived_);
  if (exchange_.cancellation().cancelled()) {
    metrics_.CountRequest("cancelled", took);
    return kClientLeft;
  }
  if (!status.ok()) {
    metrics_.CountRequest("error", took);
    return Fail(status);
  }
  // Counted first: whoever has the answer finds it counted.
  metrics_.CountRequest(FinishReasonName(last_finish_), took);
  FinishAnswer();
  return 200;
}

absl::Status CompletionRun::Answer() {
  ODMOE_ASSIGN_OR_RETURN(request_, ParseCompletionRequest(exchange_.request().body));
  ODMOE_ASSIGN_OR_RETURN(const ModelInfo info, model_.Info());
  if (!request_.model.empty() && request_.model != info.name) return ModelNotFound(request_.model);
  head_.id = NewCompletionId();
  head_.created = absl::ToUnixSeconds(absl::Now());
  head_.model = info.name;
  if (request_.stream) exchange_.OpenStream("text/event-stream", kHeartbeat);
  int index = 0;
  for (const Prompt& prompt : request_.prompts) {
    for (int k = 0; k < request_.n; ++k) {
      ODMOE_RETURN_IF_ERROR(GenerateChoice(prompt, index++, k == 0));
    }
  }
  return absl::OkStatus();
}

absl::Status CompletionRun::GenerateChoice(const Prompt& prompt, int index, bool first_of_prompt) {
  Choice choice;
  choice.index = index;
  if (request_.logprobs) choice.logprobs.emplace();
  if (request_.echo) {
    ODMOE_ASSIGN_OR_RETURN(choice.text, EchoOf(prompt));
  }
  GenerateRequest generate = request_.generate;
  generate.prompt = prompt;
  // Or the choices of one seed would all be the same.
  if (generate.sampling.seed) *generate.sampling.seed += uint64_t(index);
  last_token_.reset();
  text_offset_ = 0;
  CallOptions call;
  call.cancellation = &exchange_.cancellation();
  absl::StatusOr<GenerateSummary> summary = model_.Generate(
      generate, call, [&](const TokenEvent& event) { return OnToken(event, choice); });
  ODMOE_RETURN_IF_ERROR(token_error_);
  if (!summary.ok()) return summary.status();
  metrics_.CountGeneration(*summary);
  cost_.Add(*summary);
  if (first_of_prompt) usage_.prompt_tokens += summary->prompt_tokens;
  usage_.completion_tokens += summary->completion_tokens;
  last_finish_ = summary->finish_reason;
  choice.text += summary->tail;
  choice.finish_reason = summary->finish_reason;
  if (!request_.stream) {
    choices_.push_back(std::move(choice));
    return absl::OkStatus();
  }
  return WriteChunk({std::move(choice)}) ? absl::OkStatus()
                                         : absl::CancelledError("the client has left");
}

absl::StatusOr<std::string> CompletionRun::EchoOf(const Prompt& prompt) {
  if (prompt.tokens.empty()) return prompt.text;
  return model_.Detokenize(prompt.tokens);
}

// `choice` holds what has not been sent yet: without a stream, all of it.
bool CompletionRun::OnToken(const TokenEvent& event, Choice& choice) {
  const Clock::time_point now = Clock::now();
  if (last_token_) {
    metrics_.ObserveInterTokenLatency(absl::FromChrono(now - *last_token_));
  } else {
    metrics_.ObserveTimeToFirstToken(absl::FromChrono(now - arrived_));
  }
  last_token_ = now;
  choice.text += event.text;
  if (choice.logprobs) {
    token_error_ = AddLogprobs(event, *choice.logprobs);
    if (!token_error_.ok()) return false;
  }
  if (!request_.stream) return !exchange_.cancellation().cancelled();
  const bool nothing_to_show =
      choice.text.empty() && (!choice.logprobs || choice.logprobs->tokens.empty());
  if (nothing_to_show) return !exchange_.cancellation().cancelled();
  Choice chunk = std::exchange(choice, Choice{});
  choice.index = chunk.index;
  if (chunk.logprobs) choice.logprobs.emplace();
  return WriteChunk({std::move(chunk)});
}

absl::Status CompletionRun::AddLogprobs(const TokenEvent& event, ChoiceLogprobs& logprobs) {
  ODMOE_ASSIGN_OR_RETURN(const std::string piece, PieceOf(event.token));
  ChoiceLogprobs one;
  one.tokens.push_back(TokenText(piece));
  one.token_logprobs.push_back(event.logprob);
  one.text_offsets.push_back(text_offset_);
  text_offset_ += CharactersBegunIn(piece);
  auto& alternatives = one.top_logprobs.emplace_back();
  for (const auto& [token, logprob] : event.top_logprobs) {
    ODMOE_ASSIGN_OR_RETURN(const std::string other, PieceOf(token));
    alternatives.emplace_back(TokenText(other), logprob);
  }
  Append(logprobs, std::move(one));
  return absl::OkStatus();
}

absl::StatusOr<std::string> CompletionRun::PieceOf(TokenId token) {
  const auto known = pieces_.find(token);
  if (known != pieces_.end()) return known->second;
  ODMOE_ASSIGN_OR_RETURN(std::string piece, model_.Detokenize({token}));
  return pieces_[token] = std::move(piece);
}

CompletionMessage CompletionRun::Message() const {
  CompletionMessage message;
  message.id = head_.id;
  message.created = head_.created;
  message.model = head_.model;
  return message;
}

bool CompletionRun::WriteChunk(std::vector<Choice> choices) {
  CompletionMessage message = Message();
  const bool last = !choices.empty() && choices.back().finish_reason &&
                    choices.back().index + 1 == int(request_.prompts.size()) * request_.n;
  message.choices = std::move(choices);
  if (request_.include_usage) {
    message.usage_member = CompletionMessage::UsageMember::kNull;
  } else if (last) {
    message.cost = cost_;
  }
  return exchange_.Write(ServerSentEvent(CompletionJson(message)));
}

void CompletionRun::FinishAnswer() {
  CompletionMessage message = Message();
  message.usage_member = CompletionMessage::UsageMember::kPresent;
  message.usage = usage_;
  message.cost = cost_;
  if (!request_.stream) {
    message.choices = std::move(choices_);
    HttpResponse response;
    response.body = CompletionJson(message);
    exchange_.Send(response);
    return;
  }
  if (request_.include_usage) exchange_.Write(ServerSentEvent(CompletionJson(message)));
  exchange_.Write(ServerSentEvent("[DONE]"));
  exchange_.Finish();
}

// Until the stream has begun an error is an answer of its own; after that, an event of the stream.
int CompletionRun::Fail(const absl::Status& status) {
  const HttpResponse response = ErrorResponse(status);
  if (exchange_.Send(response)) return response.status;
  exchange_.Write(ServerSentEvent(response.body));
  exchange_.Write(ServerSentEvent("[DONE]"));
  exchange_.Finish();
  return 200;
}

}  // namespace odmoe
