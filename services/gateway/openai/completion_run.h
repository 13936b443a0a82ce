// One completion request from its parsed body to its answer.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/core/generation/language_model.h"
#include "services/core/http/http_exchange.h"
#include "services/gateway/openai/completion_request.h"
#include "services/gateway/openai/completion_response.h"
#include "services/gateway/openai/gateway_metrics.h"

namespace odmoe {

// Generates the choices one after the other and writes the answer, whole or as a stream. A client
// that leaves ends the generation at its next token. Used by one thread, which it blocks.
class CompletionRun {
 public:
  // Latencies are taken on a clock that never goes back.
  using Clock = std::chrono::steady_clock;

  // All outlive the run. `arrived`: when the request had been read.
  CompletionRun(LanguageModel& model, GatewayMetrics& metrics, HttpExchange& exchange,
                Clock::time_point arrived)
      : model_(model), metrics_(metrics), exchange_(exchange), arrived_(arrived) {}

  // Parses the exchange's body and answers it, with an error too. Returns the answer's HTTP status;
  // 499 where the client has left.
  int Run();

 private:
  absl::Status Answer();
  absl::Status GenerateChoice(const Prompt& prompt, int index, bool first_of_prompt);
  absl::StatusOr<std::string> EchoOf(const Prompt& prompt);

  bool OnToken(const TokenEvent& event, Choice& choice);
  absl::Status AddLogprobs(const TokenEvent& event, ChoiceLogprobs& logprobs);
  absl::StatusOr<std::string> PieceOf(TokenId token);

  bool WriteChunk(std::vector<Choice> choices);
  void FinishAnswer();
  int Fail(const absl::Status& status);
  CompletionMessage Message() const;

  LanguageModel& model_;
  GatewayMetrics& metrics_;
  HttpExchange& exchange_;
  const Clock::time_point arrived_;

  CompletionRequest request_;
  CompletionMessage head_;      // id, created, model
  std::vector<Choice> choices_;  // complete ones; without a stream
  Usage usage_;
  RequestCost cost_;
  FinishReason last_finish_ = FinishReason::kLength;

  // Of the choice at hand.
  std::optional<Clock::time_point> last_token_;
  int64_t text_offset_ = 0;  // characters generated so far
  absl::Status token_error_;
  std::map<TokenId, std::string> pieces_;
};

}  // namespace odmoe
