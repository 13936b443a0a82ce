#include "services/core/kernels/compute_pool.h"

#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(ComputePoolTest, CoversEveryIndexOnce) {
  for (const int threads : {1, 2, 7}) {
    ComputePool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t count : {0, 1, 2, 15, 16, 17, 1000}) {
      for (const int64_t grain : {1, 3, 16}) {
        std::vector<std::atomic<int>> visits(count);
        pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end) {
          EXPECT_LE(end, count);
          for (int64_t i = begin; i < end; ++i) visits[i].fetch_add(1);
        });
        for (const auto& v : visits) EXPECT_EQ(v.load(), 1);
      }
    }
  }
}

TEST(ComputePoolTest, ManyShortJobsEachSeeTheirOwnData) {
  ComputePool pool(4);
  for (int job = 0; job < 5000; ++job) {
    std::vector<int> out(8, -1);
    pool.ParallelFor(8, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = job;
    });
    for (const int v : out) ASSERT_EQ(v, job);
  }
}

TEST(ComputePoolTest, OtherThreadsHelp) {
  ComputePool pool(2);
  // Each of two ranges waits for the other to begin, which takes two threads.
  std::atomic<int> begun{0};
  pool.ParallelFor(2, 1, [&](int64_t, int64_t) {
    begun.fetch_add(1);
    while (begun.load() < 2) {
    }
  });
  EXPECT_EQ(begun.load(), 2);
}

}  // namespace
}  // namespace odmoe
