#include "tests/gateway/fake_language_model.h"

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

}  // namespace

void FakeLanguageModel::set_stops(bool stops) {
  absl::MutexLock lock(&mutex_);
  stops_ = stops;
}

void FakeLanguageModel::set_info_error(absl::Status error) {
  absl::MutexLock lock(&mutex_);
  info_error_ = error;
}

void FakeLanguageModel::set_generate_error(absl::Status error, int tokens) {
  absl::MutexLock lock(&mutex_);
  generate_error_ = error;
  error_after_ = tokens;
}

void FakeLanguageModel::HoldAfter(int tokens) {
  absl::MutexLock lock(&mutex_);
  hold_after_ = tokens;
}

void FakeLanguageModel::Release() { HoldAfter(std::numeric_limits<int>::max()); }

bool FakeLanguageModel::WaitUntilHeld(int count) {
  absl::MutexLock lock(&mutex_);
  const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return held_ >= count; };
  return mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience);
}

bool FakeLanguageModel::WaitUntilCancelled(int count) {
  absl::MutexLock lock(&mutex_);
  const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return cancelled_ >= count; };
  return mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience);
}

int FakeLanguageModel::generations() {
  absl::MutexLock lock(&mutex_);
  return generations_;
}

GenerateRequest FakeLanguageModel::last_request() {
  absl::MutexLock lock(&mutex_);
  return last_request_;
}

int FakeLanguageModel::tokens() {
  absl::MutexLock lock(&mutex_);
  return tokens_;
}

absl::StatusOr<ModelInfo> FakeLanguageModel::Info() {
  absl::MutexLock lock(&mutex_);
  if (!info_error_.ok()) return info_error_;
  ModelInfo info;
  info.name = "fake";
  info.architecture = "script";
  info.context_length = 128;
  return info;
}

absl::StatusOr<std::vector<TokenId>> FakeLanguageModel::Tokenize(absl::string_view text,
                                                                 const TokenizeOptions& options) {
  return std::vector<TokenId>(text.begin(), text.end());
}

absl::StatusOr<std::string> FakeLanguageModel::Detokenize(const std::vector<TokenId>& tokens) {
  std::string text;
  for (const TokenId token : tokens) {
    if (token < 0 || size_t(token) >= script_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("no token ", token));
    }
    text += script_[token];
  }
  return text;
}

bool FakeLanguageModel::WaitAtHold(int tokens_so_far, const CallOptions& call) {
  absl::MutexLock lock(&mutex_);
  const auto free = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return tokens_so_far < hold_after_;
  };
  if (!free()) ++held_;
  while (!mutex_.AwaitWithTimeout(absl::Condition(&free), absl::Milliseconds(2))) {
    if (call.cancellation != nullptr && call.cancellation->cancelled()) break;
  }
  const bool cancelled = call.cancellation != nullptr && call.cancellation->cancelled();
  if (cancelled) ++cancelled_;
  return !cancelled;
}

TokenEvent FakeLanguageModel::EventFor(int index, const GenerateRequest& request) const {
  TokenEvent event;
  event.token = TokenId(size_t(index) % script_.size());
  event.text = script_[event.token];
  if (request.logprobs) {
    event.logprob = -0.5f * float(index + 1);
    for (int i = 0; i < request.top_logprobs && i < int(script_.size()); ++i) {
      event.top_logprobs.emplace_back(i, -0.25f * float(i + 1));
    }
  }
  return event;
}

absl::StatusOr<GenerateSummary> FakeLanguageModel::Generate(const GenerateRequest& request,
                                                            const CallOptions& call,
                                                            const OnToken& on_token) {
  int count = request.max_tokens;
  absl::Status error;
  GenerateSummary summary;
  {
    absl::MutexLock lock(&mutex_);
    ++generations_;
    last_request_ = request;
    error = generate_error_;
    if (!error.ok() && error_after_ == 0) return error;
    if (!error.ok()) count = error_after_;
    if (stops_ && count > int(script_.size())) {
      count = int(script_.size());
      summary.finish_reason = FinishReason::kStop;
    }
  }
  summary.prompt_tokens = int32_t(request.prompt.text.size() + request.prompt.tokens.size());
  summary.timings = {1.0, 2.0, 4.0, 250.0};
  summary.experts = {30, 10, 5.0, 4096, 40, 3, 4};
  for (int i = 0; i < count; ++i) {
    if (!WaitAtHold(i, call)) return absl::CancelledError("cancelled");
    {
      absl::MutexLock lock(&mutex_);
      ++tokens_;
    }
    ++summary.completion_tokens;
    if (!on_token(EventFor(i, request))) {
      absl::MutexLock lock(&mutex_);
      ++cancelled_;
      summary.finish_reason = FinishReason::kCancelled;
      return summary;
    }
  }
  if (!error.ok()) return error;
  return summary;
}

absl::StatusOr<ScoreResult> FakeLanguageModel::Score(const ScoreRequest& request,
                                                     const CallOptions& call) {
  return absl::UnimplementedError("the gateway does not score");
}

}  // namespace odmoe
