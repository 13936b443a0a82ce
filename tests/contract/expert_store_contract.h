// What every ExpertStore is held to.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/experts/expert_store.h"
#include "services/core/experts/memory_expert_source.h"
#include "tests/support/faulty_expert_source.h"

namespace odmoe {

// A store of `slots` slots over a source. `keep` takes what must live as long as the store.
struct StoreFactory {
  std::string name;
  std::function<std::unique_ptr<ExpertStore>(std::unique_ptr<ExpertSource> source, int64_t slots,
                                             std::shared_ptr<void>& keep)>
      make;
  // Another client of the store that `make` has made, where a client may not pin all slots; else
  // null.
  std::function<std::unique_ptr<ExpertStore>(const std::shared_ptr<void>& keep)> make_another = {};
};

inline std::ostream& operator<<(std::ostream& out, const StoreFactory& factory) {
  return out << factory.name;
}

// A model of two layers, 0 and 1, of eight experts each.
class ExpertStoreContractTest : public ::testing::TestWithParam<StoreFactory> {
 protected:
  static constexpr int32_t kExperts = 8;

  // Makes the store under test; one a test.
  void Open(int64_t slots);

  // Acquires, waits for all, and checks their bytes.
  void AcquireAndCheck(const std::vector<ExpertId>& ids);
  // Pins experts 0 and 1 of layer 0 in one batch, 2 and 3 in the other, as hits, the other batch by
  // another client where one alone may not.
  void PinFour(std::unique_ptr<ExpertBatch>& one, std::unique_ptr<ExpertBatch>& two);
  // Waits for expert i of a batch, and checks its bytes.
  void CheckBytes(ExpertBatch& batch, size_t i, ExpertId id);
  // Polls Stats until the condition holds; a minute at most.
  StoreStats AwaitStats(const std::function<bool(const StoreStats&)>& condition);

  std::shared_ptr<ReadFaults> faults_ = std::make_shared<ReadFaults>();
  std::unique_ptr<MemoryExpertSource> truth_;
  std::shared_ptr<void> keep_;
  std::unique_ptr<ExpertStore> store_;
  std::unique_ptr<ExpertStore> another_;  // null where `store_` may pin all slots
};

// Far enough away to mean never, near enough to end a test that hangs.
absl::Time Soon();
absl::Time Patient();

}  // namespace odmoe
