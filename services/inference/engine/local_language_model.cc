#include "services/inference/engine/local_language_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/inference/engine/loaded_model.h"
#include "services/inference/engine/sequence.h"
#include "services/inference/sampling/request_check.h"
#include "services/inference/sampling/sampler.h"
#include "services/inference/sampling/text_stream.h"

namespace odmoe {
namespace {

double MillisecondsSince(absl::Time start) {
  return absl::ToDoubleMilliseconds(absl::Now() - start);
}

uint64_t BytesRead(ExpertStore& store) {
  const absl::StatusOr<StoreStats> stats = store.Stats();
  return stats.ok() ? stats->bytes_read : 0;
}

// What the store read since construction. A store that cannot say, or restarted, has read nothing.
class ReadMeter {
 public:
  explicit ReadMeter(ExpertStore& store) : store_(store), start_(BytesRead(store)) {}
  uint64_t bytes() const {
    const uint64_t now = BytesRead(store_);
    return now > start_ ? now - start_ : 0;
  }

 private:
  ExpertStore& store_;
  const uint64_t start_;
};

absl::Status NotNumbers(int64_t position) {
  return absl::DataLossError(absl::StrCat("the logits after token ", position,
                                          " are not numbers; the model's weights may be corrupt"));
}

// The sampled continuation of one request.
class Generation {
 public:
  Generation(LoadedModel& model, const GenerateRequest& request,
             const LanguageModel::OnToken& on_token)
      : model_(model),
        request_(request),
        on_token_(on_token),
        sampler_(request.sampling),
        stream_(request.stop),
        report_{request.logprobs || request.top_logprobs > 0, request.top_logprobs} {}

  absl::StatusOr<GenerateSummary> Run(Sequence& sequence, absl::Span<const TokenId> prompt,
                                      int64_t max_tokens) {
    summary_.prompt_tokens = static_cast<int32_t>(prompt.size());
    if (request_.experts) sequence.set_trace(&summary_.chosen);
    absl::Time start = absl::Now();
    if (max_tokens > 0) ODMOE_RETURN_IF_ERROR(sequence.AppendForLogits(prompt, logits_));
    summary_.timings.prefill_ms = MillisecondsSince(start);

    start = absl::Now();
    int64_t steps = 0;
    while (summary_.completion_tokens < max_tokens) {
      ODMOE_ASSIGN_OR_RETURN(const Draw draw, sampler_.Next(logits_, report_));
      if (!Emit(draw) || summary_.completion_tokens == max_tokens) break;
      ODMOE_RETURN_IF_ERROR(sequence.AppendForLogits({&draw.token, 1}, logits_));
      ++steps;
    }
    summary_.timings.decode_ms = MillisecondsSince(start);
    if (steps > 0) summary_.timings.tokens_per_second = steps * 1e3 / summary_.timings.decode_ms;
    summary_.tail = stream_.Finish();
    summary_.experts = sequence.use();
    return std::move(summary_);
  }

 private:
  // Shows a token. False: it was the last; finish_reason says why.
  bool Emit(const Draw& draw) {
    const Tokenizer& tokenizer = *model_.tokenizer;
    if (tokenizer.IsEndOfGeneration(draw.token) && !request_.ignore_eos) {
      summary_.finish_reason = FinishReason::kStop;
      return false;
    }
    ++summary_.completion_tokens;
    TokenEvent event;
    event.token = draw.token;
    event.text = stream_.Append(tokenizer.IsControl(draw.token) ? absl::string_view()
                                                                : tokenizer.Piece(draw.token));
    event.logprob = draw.logprob;
    event.top_logprobs = draw.top_logprobs;
    if (!on_token_(event)) {
      summary_.finish_reason = FinishReason::kCancelled;
      return false;
    }
    if (stream_.stopped()) {
      summary_.finish_reason = FinishReason::kStop;
      return false;
    }
    return true;
  }

  LoadedModel& model_;
  const GenerateRequest& request_;
  const LanguageModel::OnToken& on_token_;
  Sampler sampler_;
  TextStream stream_;
  const DrawReport report_;
  std::vector<float> logits_;
  GenerateSummary summary_;
};

class LocalLanguageModel : public LanguageModel {
 public:
  explicit LocalLanguageModel(std::unique_ptr<LoadedModel> model) : model_(std::move(model)) {}

  absl::StatusOr<ModelInfo> Info() override { return model_->info; }

  absl::StatusOr<std::vector<TokenId>> Tokenize(absl::string_view text,
                                                const TokenizeOptions& options) override {
    return model_->tokenizer->Encode(text, options);
  }

  absl::StatusOr<std::string> Detokenize(const std::vector<TokenId>& tokens) override {
    return model_->tokenizer->Decode(tokens);
  }

  absl::StatusOr<GenerateSummary> Generate(const GenerateRequest& request, const CallOptions& call,
                                           const OnToken& on_token) override {
    if (const auto broken = CheckGenerate(request, model_->info)) return broken->ToStatus();
    ODMOE_ASSIGN_OR_RETURN(const std::vector<TokenId> prompt, PromptTokens(request.prompt));
    const int64_t room = model_->info.context_length - static_cast<int64_t>(prompt.size());
    const int64_t max_tokens = std::min<int64_t>(request.max_tokens, room);
    const absl::Time start = absl::Now();
    ODMOE_ASSIGN_OR_RETURN(Sequence sequence, Begin(prompt.size() + max_tokens, call));
    const double queue_ms = MillisecondsSince(start);
    const ReadMeter meter(*model_->store);
    Generation generation(*model_, request, on_token);
    ODMOE_ASSIGN_OR_RETURN(GenerateSummary summary, generation.Run(sequence, prompt, max_tokens));
    summary.timings.queue_ms = queue_ms;
    summary.experts.bytes_read = meter.bytes();
    return summary;
  }

  absl::StatusOr<ScoreResult> Score(const ScoreRequest& request, const CallOptions& call) override {
    if (const auto broken = CheckScore(request, model_->info)) return broken->ToStatus();
    ScoreResult result;
    ODMOE_ASSIGN_OR_RETURN(result.tokens, PromptTokens(request.prompt));
    if (result.tokens.size() < 2) {
      return absl::InvalidArgumentError("prompt: it has one token, a score needs two at least");
    }
    const absl::Time start = absl::Now();
    ODMOE_ASSIGN_OR_RETURN(Sequence sequence, Begin(result.tokens.size(), call));
    result.timings.queue_ms = MillisecondsSince(start);
    const ReadMeter meter(*model_->store);
    if (request.experts) sequence.set_trace(&result.experts);
    const absl::Time computing = absl::Now();
    ODMOE_RETURN_IF_ERROR(ScoreTokens(sequence, result));
    result.timings.prefill_ms = MillisecondsSince(computing);
    result.expert_use = sequence.use();
    result.expert_use.bytes_read = meter.bytes();
    return result;
  }

  absl::Status Logits(const std::vector<TokenId>& tokens, int64_t first, const CallOptions& call,
                      const OnLogits& on_logits) override {
    ODMOE_RETURN_IF_ERROR(PromptTokens({.tokens = tokens}).status());
    if (first < 0 || first >= static_cast<int64_t>(tokens.size())) {
      return absl::InvalidArgumentError(absl::StrCat("first is ", first, ", expected 0 to ",
                                                     tokens.size() - 1));
    }
    ODMOE_ASSIGN_OR_RETURN(Sequence sequence, Begin(tokens.size(), call));
    return RunForLogits(sequence, tokens, first, on_logits);
  }

 private:
  absl::StatusOr<std::vector<TokenId>> PromptTokens(const Prompt& prompt) const {
    std::vector<TokenId> tokens = prompt.tokens;
    if (!prompt.text.empty()) {
      ODMOE_ASSIGN_OR_RETURN(tokens, model_->tokenizer->Encode(prompt.text, prompt.tokenize));
    }
    if (tokens.empty()) return absl::InvalidArgumentError("prompt: it has no tokens");
    if (tokens.size() > static_cast<size_t>(model_->info.context_length)) {
      return absl::InvalidArgumentError(absl::StrCat("prompt: it has ", tokens.size(),
                                                     " tokens, the context ",
                                                     model_->info.context_length));
    }
    return tokens;
  }

  absl::StatusOr<Sequence> Begin(int64_t tokens, const CallOptions& call) {
    const uint64_t bytes = KvCache::BytesFor(model_->config, tokens);
    ODMOE_ASSIGN_OR_RETURN(Admission::Grant grant, model_->admission->Admit(bytes, call));
    if (call.on_started) call.on_started();
    return Sequence(*model_, call, std::move(grant));
  }

  // Calls on_logits(position, row) for each position from `first` on.
  absl::Status RunForLogits(Sequence& sequence, absl::Span<const TokenId> tokens, int64_t first,
                            const OnLogits& on_logits) {
    // Few tokens at a time: a vocabulary of floats a token is the largest thing here.
    constexpr int64_t kStrip = 8;
    const int64_t vocabulary = model_->config.vocabulary;
    std::vector<float> logits(std::min(kStrip, model_->transformer->max_tokens()) * vocabulary);
    return sequence.Append(tokens, [&](int64_t begin, int64_t count) {
      for (int64_t strip = std::max<int64_t>(0, first - begin); strip < count; strip += kStrip) {
        const int64_t rows = std::min(kStrip, count - strip);
        model_->transformer->Logits(strip, rows, logits.data());
        for (int64_t i = 0; i < rows; ++i) {
          ODMOE_RETURN_IF_ERROR(on_logits(
              begin + strip + i, absl::MakeConstSpan(logits.data() + i * vocabulary, vocabulary)));
        }
      }
      return absl::OkStatus();
    });
  }

  absl::Status ScoreTokens(Sequence& sequence, ScoreResult& result) {
    const auto total = static_cast<int64_t>(result.tokens.size());
    double sum = 0.0;
    result.logprobs = {std::numeric_limits<double>::quiet_NaN()};
    const auto score = [&](int64_t position, absl::Span<const float> logits) {
      if (position + 1 == total) return absl::OkStatus();
      const double logprob = LogProbability(logits, result.tokens[position + 1]);
      if (!std::isfinite(logprob)) return NotNumbers(position);
      result.logprobs.push_back(logprob);
      sum += logprob;
      return absl::OkStatus();
    };
    ODMOE_RETURN_IF_ERROR(RunForLogits(sequence, result.tokens, 0, score));
    result.perplexity = std::exp(-sum / static_cast<double>(total - 1));
    return absl::OkStatus();
  }

  const std::unique_ptr<LoadedModel> model_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LanguageModel>> OpenLocalLanguageModel(LocalModelOptions options) {
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<LoadedModel> model, LoadModel(options));
  return std::make_unique<LocalLanguageModel>(std::move(model));
}

}  // namespace odmoe
