#include "services/core/experts/no_expert_store.h"

#include <utility>

#include "absl/status/status.h"

namespace odmoe {
namespace {

class EmptyBatch : public ExpertBatch {
 public:
  size_t size() const override { return 0; }
  bool Ready(size_t) override { return true; }
  bool AwaitReady(size_t, absl::Time) override { return true; }
  absl::StatusOr<ExpertView> Wait(size_t) override {
    return absl::InvalidArgumentError("a batch of no experts has none to wait for");
  }
  size_t hits() const override { return 0; }
};

class NoExpertStore : public ExpertStore {
 public:
  explicit NoExpertStore(ExpertCatalog catalog) : catalog_(std::move(catalog)) {}

  const ExpertCatalog& catalog() const override { return catalog_; }

  absl::StatusOr<std::unique_ptr<ExpertBatch>> Acquire(absl::Span<const ExpertId> ids,
                                                       absl::Time) override {
    if (ids.empty()) return std::make_unique<EmptyBatch>();
    return absl::NotFoundError("the model has no routed experts");
  }
  void Prefetch(absl::Span<const ExpertId>) override {}
  size_t max_batch() const override { return 0; }
  absl::StatusOr<StoreStats> Stats() override { return StoreStats{}; }

 private:
  const ExpertCatalog catalog_;
};

}  // namespace

std::shared_ptr<ExpertStore> MakeNoExpertStore(ExpertCatalog catalog) {
  return std::make_shared<NoExpertStore>(std::move(catalog));
}

}  // namespace odmoe
