// A language model that says what a test wrote down for it.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// Token i is the script's piece i; a generation says the script from its start, and over again,
// until max_tokens, or to its end where it `stops`. Obeys cancellation as LanguageModel asks for,
// within one token. Thread-safe.
class FakeLanguageModel : public LanguageModel {
 public:
  explicit FakeLanguageModel(std::vector<std::string> script = {"Hello", " ", "world"})
      : script_(std::move(script)) {}

  void set_stops(bool stops);
  void set_info_error(absl::Status error);
  // Generations end with this after `tokens` tokens.
  void set_generate_error(absl::Status error, int tokens = 0);
  // Generations wait after so many tokens until Release, or until they are cancelled.
  void HoldAfter(int tokens);
  void Release();

  // Waits until this many generations wait at the hold; false: not within twenty seconds.
  bool WaitUntilHeld(int count);
  // The same for generations that were ended by their caller.
  bool WaitUntilCancelled(int count);
  int generations();
  GenerateRequest last_request();
  // The tokens given out over all generations.
  int tokens();

  absl::StatusOr<ModelInfo> Info() override;
  absl::StatusOr<std::vector<TokenId>> Tokenize(absl::string_view text,
                                                const TokenizeOptions& options) override;
  absl::StatusOr<std::string> Detokenize(const std::vector<TokenId>& tokens) override;
  absl::StatusOr<GenerateSummary> Generate(const GenerateRequest& request, const CallOptions& call,
                                           const OnToken& on_token) override;
  absl::StatusOr<ScoreResult> Score(const ScoreRequest& request, const CallOptions& call) override;

 private:
  // False: the caller has cancelled.
  bool WaitAtHold(int tokens_so_far, const CallOptions& call);
  TokenEvent EventFor(int index, const GenerateRequest& request) const;

  const std::vector<std::string> script_;
  absl::Mutex mutex_;
  bool stops_ ABSL_GUARDED_BY(mutex_) = false;
  int hold_after_ ABSL_GUARDED_BY(mutex_) = std::numeric_limits<int>::max();
  int held_ ABSL_GUARDED_BY(mutex_) = 0;
  int cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  int generations_ ABSL_GUARDED_BY(mutex_) = 0;
  int tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  int error_after_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status generate_error_ ABSL_GUARDED_BY(mutex_);
  absl::Status info_error_ ABSL_GUARDED_BY(mutex_);
  GenerateRequest last_request_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace odmoe
