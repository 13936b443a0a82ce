// A language model small enough to predict by eye: after a letter it most likely says the next one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// Token b is byte b, token 256 ends the text. The logit of a token falls with its distance from the
// byte after the last one; after 'z' the end is the most likely. Everything else is the real thing:
// bounds, sampling, stop strings, cancellation and deadlines. Two layers, of which the second
// chooses among four experts. Set the knobs before sharing it between threads; the rest is
// thread-safe.
class AlphabetModel final : public LanguageModel {
 public:
  static constexpr TokenId kEnd = 256;

  explicit AlphabetModel(std::string name, int32_t context_length = 64);

  // Called before a request starts; an error refuses it, as a full queue would.
  std::function<absl::Status()> on_queue;
  // Called before each token is drawn, with the number drawn so far and the call it is for; an
  // error ends the generation.
  std::function<absl::Status(int32_t drawn, const CallOptions& call)> before_token;

  // Tokens drawn in all generations.
  int64_t tokens_drawn() const;

  absl::StatusOr<ModelInfo> Info() override { return info_; }
  absl::StatusOr<std::vector<TokenId>> Tokenize(absl::string_view text,
                                                const TokenizeOptions& options) override;
  absl::StatusOr<std::string> Detokenize(const std::vector<TokenId>& tokens) override;
  absl::StatusOr<GenerateSummary> Generate(const GenerateRequest& request, const CallOptions& call,
                                           const OnToken& on_token) override;
  absl::StatusOr<ScoreResult> Score(const ScoreRequest& request, const CallOptions& call) override;

 private:
  absl::StatusOr<std::vector<TokenId>> PromptTokens(const Prompt& prompt);
  absl::Status Start(const CallOptions& call);

  ModelInfo info_;
  mutable absl::Mutex mutex_;
  int64_t drawn_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace odmoe
