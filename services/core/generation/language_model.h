// What a client sees of inference, whether the model runs in this process or behind a service.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/core/base/cancellation.h"

namespace odmoe {

using TokenId = int32_t;

struct ModelInfo {
  std::string name;          // how requests name the model
  std::string architecture;  // "deepseek2"
  std::string digest;        // of the expert bytes, hex
  int32_t layer_count = 0;
  int32_t expert_count = 0;       // per MoE layer
  int32_t experts_per_token = 0;  // per MoE layer
  int32_t vocabulary_size = 0;
  int32_t context_length = 0;     // tokens, prompt and continuation together
  uint64_t base_bytes = 0;
  uint64_t expert_bytes = 0;
  std::string chat_template;      // Jinja text, or ""
};

struct TokenizeOptions {
  bool add_special = true;    // BOS and EOS where the model wants them
  bool parse_special = true;  // "<|im_end|>" in the text is that token
};

// A prompt: text, or tokens where text is empty.
struct Prompt {
  std::string text;
  std::vector<TokenId> tokens;
  TokenizeOptions tokenize;
};

// How the next token is drawn: scale by temperature, keep top_k, then top_p, then min_p.
struct Sampling {
  float temperature = 1.0f;  // 0: the most likely token; at most 100
  int32_t top_k = 0;         // 0: no limit
  float top_p = 1.0f;        // (0, 1]
  float min_p = 0.0f;        // [0, 1): relative to the most likely
  std::optional<uint64_t> seed;
};

struct GenerateRequest {
  static constexpr int kMaxStops = 16;
  static constexpr int kMaxTopLogprobs = 20;

  Prompt prompt;
  int32_t max_tokens = 16;
  Sampling sampling;
  std::vector<std::string> stop;  // never part of the output, even when they straddle tokens
  int32_t top_logprobs = 0;       // alternatives to report per token
  bool logprobs = false;
  bool ignore_eos = false;
  bool experts = false;           // report the chosen experts; of a model in this process alone
};

// Layer -> per token, the experts it chose, ascending.
using ChosenExperts = std::map<int32_t, std::vector<std::vector<int32_t>>>;

// One generated token. `text` is what may be shown now: whole UTF-8 characters, with what could
// still become a stop string held back; so it may be empty, or hold more than this token.
struct TokenEvent {
  TokenId token = 0;
  std::string text;
  float logprob = 0.0f;  // natural, before temperature; where asked for
  std::vector<std::pair<TokenId, float>> top_logprobs;
};

enum class FinishReason { kStop, kLength, kCancelled };

struct Timings {
  double queue_ms = 0.0;
  double prefill_ms = 0.0;
  double decode_ms = 0.0;
  double tokens_per_second = 0.0;  // of decoding
};

// What the experts of one request cost.
struct ExpertUse {
  uint64_t hits = 0;        // experts pinned without waiting
  uint64_t misses = 0;
  double stall_ms = 0.0;    // time the forward pass waited for experts
  uint64_t bytes_read = 0;  // bytes the store read while this request ran
  uint64_t predicted = 0;   // experts predicted
  uint64_t predicted_right =
      0;  // of the experts chosen where there was a prediction, those predicted
  uint64_t predicted_of = 0;     // experts chosen where there was a prediction
  uint64_t executed = 0;         // experts computed on another host: neither hits nor misses
  uint64_t executed_bytes = 0;   // hidden states sent for those, and outputs received

  double hit_rate() const {
    return hits + misses == 0 ? 0.0 : double(hits) / double(hits + misses);
  }
  double recall() const {
    return predicted_of == 0 ? 0.0 : double(predicted_right) / double(predicted_of);
  }
};

struct GenerateSummary {
  FinishReason finish_reason = FinishReason::kLength;
  std::string tail;  // shown text that was still held back at the end
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  Timings timings;
  ExpertUse experts;
  // Where asked for: of the prompt's tokens, then of those generated but the last, which the model
  // has not been run on.
  ChosenExperts chosen;
};

struct ScoreRequest {
  Prompt prompt;
  bool experts = false;  // report the chosen experts
};

struct ScoreResult {
  std::vector<TokenId> tokens;
  std::vector<double> logprobs;  // natural; [0] is NaN: nothing precedes the first token
  double perplexity = 0.0;       // exp of the mean of -logprobs[1..]
  ChosenExperts experts;         // where asked for
  Timings timings;
  ExpertUse expert_use;
};

// How long a call may take, and who may end it.
struct CallOptions {
  absl::Time deadline = absl::InfiniteFuture();
  const Cancellation* cancellation = nullptr;  // may be null
  // Called once, on the calling thread, when the request stops waiting for others; may be empty. A
  // model in another process does not call it.
  std::function<void()> on_started;
};

// A loaded model. Thread-safe; concurrent calls share the machine.
class LanguageModel {
 public:
  // Called for each token, in order, on the calling thread; false ends the generation.
  using OnToken = std::function<bool(const TokenEvent&)>;

  virtual ~LanguageModel() = default;

  // FAILED_PRECONDITION: no model is loaded. UNAVAILABLE: the service is unreachable.
  virtual absl::StatusOr<ModelInfo> Info() = 0;

  // INVALID_ARGUMENT: text that is not UTF-8.
  virtual absl::StatusOr<std::vector<TokenId>> Tokenize(absl::string_view text,
                                                        const TokenizeOptions& options) = 0;
  // The bytes of the tokens, joined; may be incomplete UTF-8. INVALID_ARGUMENT: unknown token.
  virtual absl::StatusOr<std::string> Detokenize(const std::vector<TokenId>& tokens) = 0;

  // INVALID_ARGUMENT: a bound above is broken, an empty prompt, or one longer than the context.
  // RESOURCE_EXHAUSTED: too many requests wait. UNAVAILABLE: the expert store went away.
  // CANCELLED, DEADLINE_EXCEEDED: as asked, within one token. UNIMPLEMENTED: the chosen experts of
  // a model in another process.
  virtual absl::StatusOr<GenerateSummary> Generate(const GenerateRequest& request,
                                                   const CallOptions& call,
                                                   const OnToken& on_token) = 0;
  virtual absl::StatusOr<ScoreResult> Score(const ScoreRequest& request,
                                            const CallOptions& call) = 0;

  // Called for each position asked for, in order, on the calling thread, with the logits
  // [vocabulary_size] after that token, valid during the call; an error ends the request with it.
  using OnLogits = std::function<absl::Status(int64_t position, absl::Span<const float> logits)>;

  // Runs `tokens` and gives what the model makes of each position from `first` on.
  // INVALID_ARGUMENT: no tokens, one outside the vocabulary, more than the context, or `first` is
  // not among them. UNIMPLEMENTED: a model in another process, as a vocabulary of floats a token is
  // more than a connection should carry. Otherwise as Score.
  virtual absl::Status Logits(const std::vector<TokenId>& tokens, int64_t first,
                              const CallOptions& call, const OnLogits& on_logits) {
    return absl::UnimplementedError("logits are given only by a model in this process");
  }
};

}  // namespace odmoe
