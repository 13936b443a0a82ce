// Experts computed where they are: hidden states go there, the experts' output comes back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/core/experts/expert_catalog.h"

namespace odmoe {

// An expert and the tokens that chose it: rows of a hidden state, ascending, at least one.
struct TokensOfExpert {
  int32_t expert = 0;
  absl::Span<const int32_t> tokens;
};

// Experts of one layer being computed. Owned by one thread at a time. Its destruction gives up what
// has not come; after that the outputs dangle.
class ExpertExecution {
 public:
  virtual ~ExpertExecution() = default;
  // True once Wait(i) would not block.
  virtual bool Ready(size_t i) = 0;
  // Waits until Ready(i), `until` at most, and returns Ready(i).
  virtual bool AwaitReady(size_t i, absl::Time until) = 0;
  // The output of expert i, [its tokens, dim]. May be called again. Errors as Execute's, and
  // DATA_LOSS: the expert's bytes are corrupt there.
  virtual absl::StatusOr<absl::Span<const float>> Wait(size_t i) = 0;
};

// Thread-safe.
class ExpertExecutor {
 public:
  // The most bytes of outputs in one Execute, which are more than those of hidden states.
  static constexpr uint64_t kMaxBytes = uint64_t{16} << 20;
  // The most tokens in one Execute.
  static constexpr int64_t kMaxTokens = 4096;

  virtual ~ExpertExecutor() = default;

  // The experts it computes.
  virtual const ExpertCatalog& catalog() const = 0;

  // Has `experts` of a layer computed, ascending by expert, on `hidden` [tokens, dim], which is
  // copied. The bits are those this process would compute. Never blocks. INVALID_ARGUMENT: more
  // than the above. UNAVAILABLE: nobody is there; the same comes later from Wait as
  // DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED (too busy) and FAILED_PRECONDITION (another computes
  // otherwise) do.
  virtual absl::StatusOr<std::unique_ptr<ExpertExecution>> Execute(
      int32_t layer, int64_t tokens, absl::Span<const float> hidden,
      absl::Span<const TokensOfExpert> experts, absl::Time deadline) = 0;
};

}  // namespace odmoe
