// The bounds of what a request may ask, in one place for the engine and for the service.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// The first bound a request breaks. `field` is the path as the proto names it, "sampling.top_p".
struct FieldViolation {
  std::string field;
  std::string description;

  // INVALID_ARGUMENT "field: description".
  absl::Status ToStatus() const;
};

inline constexpr size_t kMaxPromptBytes = size_t{16} << 20;
inline constexpr size_t kMaxStopBytes = 256;
inline constexpr size_t kMaxDetokenizeTokens = size_t{1} << 20;

// Null where every bound holds. A prompt's length in tokens is known only once it is tokenized:
// that it leaves room in the context is the engine's to check.
std::optional<FieldViolation> CheckText(const std::string& field, const std::string& text);
std::optional<FieldViolation> CheckPrompt(const Prompt& prompt, const ModelInfo& model);
std::optional<FieldViolation> CheckSampling(const Sampling& sampling);
std::optional<FieldViolation> CheckGenerate(const GenerateRequest& request, const ModelInfo& model);
std::optional<FieldViolation> CheckScore(const ScoreRequest& request, const ModelInfo& model);
std::optional<FieldViolation> CheckTokens(const std::string& field,
                                          const std::vector<TokenId>& tokens,
                                          const ModelInfo& model);

}  // namespace odmoe
