// The working set's memory, measured from outside: the process's own size while a model many times
// the budget goes through it.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/units.h"
#include "services/expert_storage/open_expert_store.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

// Threads' stacks, io_uring's rings, the allocator's and the sanitizer's own.
constexpr uint64_t kFixedOverhead = 48 * kMiB;

uint64_t AddressSpaceBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t pages = 0;
  statm >> pages;
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// Lowers a soft limit while it lives.
class ScopedLimit {
 public:
  ScopedLimit(__rlimit_resource resource, uint64_t bytes) : resource_(resource) {
    getrlimit(resource_, &former_);
    rlimit limit = former_;
    limit.rlim_cur = bytes;
    set_ = setrlimit(resource_, &limit) == 0;
  }
  ~ScopedLimit() { setrlimit(resource_, &former_); }
  bool set() const { return set_; }

 private:
  __rlimit_resource resource_;
  rlimit former_{};
  bool set_ = false;
};

class MemoryBoundTest : public ::testing::TestWithParam<SourceKind> {
 protected:
  // 48 experts of 1.5 MiB: 72 MiB of model.
  static constexpr int32_t kLayers = 3;
  static constexpr int32_t kExperts = 16;
  static constexpr uint64_t kBudget = 12 * kMiB;

  static void SetUpTestSuite() {
    directory_ = new TemporaryDirectory;
    MemoryExpertSource::RandomOptions shape;
    shape.layers = kLayers;
    shape.experts_per_layer = kExperts;
    shape.dim = 256;
    shape.ffn = 512;
    WriteRandomExperts(directory_->path(), shape);
  }
  static void TearDownTestSuite() { delete directory_; }

  absl::StatusOr<std::unique_ptr<CachingExpertStore>> Open(uint64_t budget) {
    OpenStoreOptions options;
    options.model_directory = directory_->path();
    options.budget = {Budget::Kind::kBytes, budget, 0};
    options.source = GetParam();
    options.use_memfd = true;
    return OpenExpertStore(options);
  }

  // Every expert several times, in random order.
  static void Thrash(CachingExpertStore& store, uint64_t& peak_rss) {
    std::mt19937 random(5);
    for (int round = 0; round < 300; ++round) {
      const int32_t layer = round % kLayers;
      std::vector<ExpertId> ids;
      for (int i = 0; i < 4; ++i) ids.push_back({layer, static_cast<int32_t>(random() % kExperts)});
      store.Prefetch({{(layer + 1) % kLayers, ids[0].expert}});
      const auto batch = store.Acquire(ids, absl::Now() + absl::Minutes(1));
      ASSERT_TRUE(batch.ok()) << batch.status();
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto view = (*batch)->Wait(i);
        ASSERT_TRUE(view.ok()) << view.status();
      }
      peak_rss = std::max(peak_rss, RssBytes());
    }
  }

  static TemporaryDirectory* directory_;
};

TemporaryDirectory* MemoryBoundTest::directory_ = nullptr;

TEST_P(MemoryBoundTest, TheProcessGrowsByTheBudgetAndNoMore) {
  const uint64_t before = RssBytes();
  uint64_t peak = 0;
  const auto store = Open(kBudget);
  ASSERT_TRUE(store.ok()) << store.status();
  Thrash(**store, peak);
  const StoreStats stats = (*store)->Stats().value();
  EXPECT_GT(stats.bytes_read, 8 * kBudget);
  EXPECT_LE(stats.resident_bytes, kBudget);
  EXPECT_LE(peak, before + kBudget + kFixedOverhead);
}

TEST_P(MemoryBoundTest, ItRunsWithNoMoreAddressSpaceThanThat) {
  // The pools' stacks and the mapped experts take address space too, but no memory.
  const ScopedLimit limit(RLIMIT_AS, AddressSpaceBytes() + kBudget + 256 * kMiB);
  ASSERT_TRUE(limit.set());
  uint64_t peak = 0;
  const auto store = Open(kBudget);
  ASSERT_TRUE(store.ok()) << store.status();
  Thrash(**store, peak);
}

TEST_P(MemoryBoundTest, AnArenaTheProcessMayNotHaveIsAnErrorNotACrash) {
  const ScopedLimit limit(RLIMIT_AS, AddressSpaceBytes() + 32 * kMiB);
  ASSERT_TRUE(limit.set());
  const auto store = Open(64 * kMiB);
  EXPECT_TRUE(absl::IsResourceExhausted(store.status())) << store.status();
}

INSTANTIATE_TEST_SUITE_P(Sources, MemoryBoundTest,
                         ::testing::Values(SourceKind::kDirect, SourceKind::kMapped),
                         [](const auto& info) {
                           return std::string(SourceKindName(info.param));
                         });

}  // namespace
}  // namespace odmoe
