#include "services/core/base/available_cores.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

// A tree that looks like /sys/fs/cgroup.
class AvailableCoresTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((mount_ / path).parent_path());
    std::ofstream(mount_ / path) << text;
  }
  std::optional<double> Cores(const std::string& membership) {
    return CgroupCores(membership, mount_.string());
  }

  const TemporaryDirectory directory_;
  const std::filesystem::path mount_ = directory_.path();
};

TEST_F(AvailableCoresTest, TheTightestGroupOnTheWayUpDecides) {
  EXPECT_EQ(Cores(""), std::nullopt);
  EXPECT_EQ(Cores("0::/a/b\n"), std::nullopt);
  Write("a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(Cores("0::/a/b\n"), std::nullopt);
  Write("a/cpu.max", "250000 100000\n");
  EXPECT_EQ(Cores("0::/a/b\n"), 2.5);
  Write("a/b/cpu.max", "50000 100000\n");
  EXPECT_EQ(Cores("0::/a/b\n"), 0.5);
  EXPECT_EQ(Cores("0::/a\n"), 2.5);
  EXPECT_EQ(Cores("0::/other\n"), std::nullopt);
}

TEST_F(AvailableCoresTest, Version1IsAskedByItsOwnNames) {
  const std::string membership = "5:memory:/c\n4:cpu,cpuacct:/c/d\n0::/\n";
  Write("cpu,cpuacct/c/d/cpu.cfs_quota_us", "-1\n");
  Write("cpu,cpuacct/c/d/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Cores(membership), std::nullopt);
  Write("cpu,cpuacct/c/cpu.cfs_quota_us", "300000\n");
  Write("cpu,cpuacct/c/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Cores(membership), 3.0);
}

TEST_F(AvailableCoresTest, AContainerFindsItsBoundAtTheMountsRoot) {
  Write("cpu.max", "150000 100000\n");
  EXPECT_EQ(Cores("0::/docker/0123abc\n"), 1.5);
}

TEST_F(AvailableCoresTest, NonsenseIsNoBound) {
  for (const char* text : {"", "max", "x y", "0 100000", "100000 0", "1 2 3"}) {
    Write("a/cpu.max", text);
    EXPECT_EQ(Cores("0::/a\nno colon\n0:\n0::a"), std::nullopt) << text;
  }
  EXPECT_GE(AvailableCores(), 1);
}

}  // namespace
}  // namespace odmoe
