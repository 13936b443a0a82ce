// The body of POST /v1/completions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

struct CompletionRequest {
  static constexpr int kMaxChoices = 16;  // prompts times n
  static constexpr int kMaxLogprobs = 5;
  static constexpr size_t kMaxStops = 4;
  static constexpr size_t kMaxStopBytes = 256;
  static constexpr float kMaxTemperature = 2.0f;

  std::string model;            // "" where the request names none
  std::vector<Prompt> prompts;  // the choices are prompt 0's n, then prompt 1's n, and so on
  int n = 1;
  bool echo = false;            // the prompt's text before the continuation
  std::optional<int> logprobs;  // alternatives a token
  bool stream = false;
  bool include_usage = false;   // a last chunk with the usage
  GenerateRequest generate;     // all of it but the prompt, for every choice
};

// The request in `body`, all of it checked but what only the model knows (the context's length, its
// vocabulary). INVALID_ARGUMENT with the member's name (InvalidParam): not JSON, nested too deeply,
// a wrong type, out of bounds, a member that is unknown or that we cannot honour.
absl::StatusOr<CompletionRequest> ParseCompletionRequest(absl::string_view body);

}  // namespace odmoe
