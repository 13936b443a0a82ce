// Experts computed where they are, for who has no memory for them: hidden states in, outputs out.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/core/base/cancellation.h"
#include "services/core/experts/expert_executor.h"
#include "services/core/experts/expert_store.h"
#include "services/core/kernels/compute_pool.h"
#include "services/core/kernels/expert_mlp.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {

// Threads for such computing, shared by all callers, who take turns. Thread-safe.
class ExpertComputer {
 public:
  struct Request {
    int32_t layer = 0;
    int64_t tokens = 0;
    absl::Span<const float> hidden;          // [tokens, dim]
    absl::Span<const TokensOfExpert> experts;
    absl::Time deadline = absl::InfiniteFuture();
    const Cancellation* cancellation = nullptr;  // may be null
  };
  // Takes expert i's output, [its tokens, dim], or why there is none. False: nobody wants the rest.
  using Emit = absl::FunctionRef<bool(size_t i, absl::StatusOr<absl::Span<const float>> output)>;

  // `threads` >= 1.
  explicit ExpertComputer(int threads) : pool_(threads) {}

  // The instruction set it computes with: who computes with another may get other bits.
  static const char* kernel_target();
  int threads() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return pool_.threads(); }

  // OK: the request fits the store's model, and is no more than ExpertExecutor takes. NOT_FOUND:
  // no such layer or expert. INVALID_ARGUMENT: a hidden state of another size, experts or tokens
  // that are not ascending, too many. UNIMPLEMENTED: as CheckComputable.
  static absl::Status Check(const ExpertCatalog& catalog, const Request& request);

  // Threads that may be in Run at once: so many share what the store lets them hold.
  static constexpr size_t kMostCallers = CachingExpertStore::kExecuteCallers;

  // Computes a request that Check has passed, resident experts first, and emits each output. No
  // expert is pinned while `emit` runs: it may block as long as it likes. CANCELLED,
  // DEADLINE_EXCEEDED: as asked; the store's errors, but for those of a single expert.
  absl::Status Run(CachingExpertStore& store, const Request& request, Emit emit);

 private:
  struct Call;
  static absl::Status AwaitFirst(const Call& call, ExpertBatch& batch, size_t position);
  absl::Status RunWave(Call& call, absl::Span<const size_t> wave);
  absl::Status Compute(Call& call, absl::Span<const size_t> wave, ExpertBatch& batch);

  absl::Mutex computing_;
  ComputePool pool_ ABSL_GUARDED_BY(computing_);
  ExpertMlp mlp_ ABSL_GUARDED_BY(computing_);
};

}  // namespace odmoe
