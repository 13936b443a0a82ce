#include "services/core/base/process_memory.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/base/units.h"
#include "tests/support/temporary_directory.h"

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

TEST(ProcessMemoryTest, TheTightestCgroupOnTheWayCountsWithoutDroppablePages) {
  const TemporaryDirectory mount;
  const auto write = [&](const std::string& path, const std::string& text) {
    std::filesystem::create_directories((mount.path() + path).substr(
        0, (mount.path() + path).rfind('/')));
    std::ofstream(mount.path() + path) << text;
  };
  write("/memory.max", "max\n");
  write("/memory.current", "5000\n");
  write("/a/memory.max", "10000\n");
  write("/a/memory.current", "4000\n");
  write("/a/memory.stat", "anon 9\ninactive_file 500\nactive_file 100\n");
  write("/a/b/memory.max", "100000\n");
  write("/a/b/memory.current", "1\n");
  EXPECT_EQ(CgroupMemoryLeft("0::/a/b\n", mount.path()), 6600u);
  EXPECT_EQ(CgroupMemoryLeft("0::/\n", mount.path()), std::nullopt);
  // A container's own group is the root of what it sees.
  write("/memory/memory.limit_in_bytes", "3000\n");
  write("/memory/memory.usage_in_bytes", "2500\n");
  write("/memory/memory.stat", "total_inactive_file 2000\ntotal_active_file 600\n");
  EXPECT_EQ(CgroupMemoryLeft("9:memory:/docker/1234\n0::/\n", mount.path()), 3000u);
  write("/memory/memory.usage_in_bytes", "90000\n");
  EXPECT_EQ(CgroupMemoryLeft("9:cpu,memory:/x\n7:memory:/\n", mount.path()), 0u);
  EXPECT_EQ(CgroupMemoryLeft("nonsense\n1:memory\n", mount.path()), std::nullopt);
}

}  // namespace
}  // namespace odmoe
