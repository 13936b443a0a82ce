// The store contract over the store of this process.
#include <memory>
#include <utility>

#include "gtest/gtest.h"
#include "services/expert_storage/caching_expert_store.h"
#include "tests/contract/expert_store_contract.h"

namespace odmoe {
namespace {

std::unique_ptr<ExpertStore> Make(std::unique_ptr<ExpertSource> source, int64_t slots,
                                  bool shareable) {
  CachingExpertStore::Options options;
  options.budget_bytes = static_cast<uint64_t>(slots) *
                         SlotBytes(source->catalog().max_expert_bytes());
  options.shareable = shareable;
  return CachingExpertStore::Create(std::move(source), std::move(options)).value();
}

std::unique_ptr<ExpertStore> InProcess(std::unique_ptr<ExpertSource> source, int64_t slots,
                                       std::shared_ptr<void>&) {
  return Make(std::move(source), slots, /*shareable=*/false);
}

std::unique_ptr<ExpertStore> InProcessOverMemfd(std::unique_ptr<ExpertSource> source, int64_t slots,
                                                std::shared_ptr<void>&) {
  return Make(std::move(source), slots, /*shareable=*/true);
}

INSTANTIATE_TEST_SUITE_P(Local, ExpertStoreContractTest,
                         ::testing::Values(StoreFactory{"InProcess", InProcess},
                                           StoreFactory{"InProcessOverMemfd", InProcessOverMemfd}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace odmoe
