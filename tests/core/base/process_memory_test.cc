#include "services/core/base/process_memory.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

TEST(ProcessMemoryTest, ThePeakRemembersMemoryThatWasGivenBack) {
  const uint64_t before = RssBytes();
  {
    std::vector<char> block(64 * kMiB);
    std::memset(block.data(), 1, block.size());
    EXPECT_GE(RssBytes(), before + 60 * kMiB);
  }
  EXPECT_GE(PeakRssBytes(), before + 60 * kMiB);
}

TEST(ProcessMemoryTest, SomeMemoryIsAvailable) {
  const auto available = AvailableMemoryBytes();
  ASSERT_TRUE(available.ok()) << available.status();
  EXPECT_GT(*available, kMiB);
}

}  // namespace
}  // namespace odmoe
