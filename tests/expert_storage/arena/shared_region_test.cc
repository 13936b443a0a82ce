#include "services/expert_storage/arena/shared_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace odmoe {
namespace {

constexpr uint64_t kBytes = 64 << 10;

std::unique_ptr<SharedRegion> Make(bool clients_write) {
  SharedRegion::Options options;
  options.name = "test";
  options.bytes = kBytes;
  options.shareable = true;
  options.clients_write = clients_write;
  return SharedRegion::Create(options).value();
}

bool CanMap(int fd, int protection) {
  void* address = mmap(nullptr, kBytes, protection, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) return false;
  munmap(address, kBytes);
  return true;
}

TEST(SharedRegionTest, IsZeroedAndWritableByItsMaker) {
  for (bool shareable : {false, true}) {
    SharedRegion::Options options;
    options.name = "test";
    options.bytes = kBytes;
    options.shareable = shareable;
    options.huge_pages = HugePages::kAuto;
    const auto region = SharedRegion::Create(options).value();
    EXPECT_EQ(region->fd() >= 0, shareable);
    EXPECT_TRUE(std::all_of(region->bytes().begin(), region->bytes().end(),
                            [](std::byte b) { return b == std::byte{0}; }));
    region->bytes()[kBytes - 1] = std::byte{1};
  }
}

TEST(SharedRegionTest, WhoGetsTheDescriptorCanReadAndNothingElse) {
  const auto region = Make(/*clients_write=*/false);
  region->bytes()[5] = std::byte{42};
  EXPECT_TRUE(CanMap(region->fd(), PROT_READ));
  EXPECT_FALSE(CanMap(region->fd(), PROT_READ | PROT_WRITE));
  EXPECT_NE(ftruncate(region->fd(), 0), 0);
  EXPECT_NE(ftruncate(region->fd(), 2 * kBytes), 0);
  const char byte = 1;
  EXPECT_LT(pwrite(region->fd(), &byte, 1, 0), 0);
  EXPECT_NE(fallocate(region->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
  EXPECT_NE(fcntl(region->fd(), F_ADD_SEALS, F_SEAL_WRITE), 0);
  // Opened anew it is no more writable.
  const int again = open(absl::StrCat("/proc/self/fd/", region->fd()).c_str(), O_RDWR | O_CLOEXEC);
  if (again >= 0) {
    EXPECT_FALSE(CanMap(again, PROT_READ | PROT_WRITE));
    close(again);
  }
  // A read-only mapping cannot be made writable.
  void* mapping = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, region->fd(), 0);
  ASSERT_NE(mapping, MAP_FAILED);
  EXPECT_EQ(static_cast<char*>(mapping)[5], 42);
  EXPECT_NE(mprotect(mapping, kBytes, PROT_READ | PROT_WRITE), 0);
  munmap(mapping, kBytes);
}

TEST(SharedRegionTest, APinPageIsWritableButKeepsItsSize) {
  const auto region = Make(/*clients_write=*/true);
  EXPECT_TRUE(CanMap(region->fd(), PROT_READ | PROT_WRITE));
  EXPECT_NE(ftruncate(region->fd(), 0), 0);
  EXPECT_NE(ftruncate(region->fd(), 2 * kBytes), 0);
}

TEST(SharedRegionTest, MoreThanTheMachineHasIsAnErrorWithTheFigures) {
  for (bool shareable : {false, true}) {
    SharedRegion::Options options;
    options.name = "arena";
    options.bytes = uint64_t{1} << 50;
    options.shareable = shareable;
    const auto region = SharedRegion::Create(options);
    ASSERT_TRUE(absl::IsResourceExhausted(region.status())) << region.status();
    EXPECT_THAT(region.status().message(), ::testing::HasSubstr(absl::StrCat(options.bytes)));
  }
}

TEST(SharedRegionTest, NothingAndTooMuchAreNoSizes) {
  SharedRegion::Options options;
  options.name = "test";
  EXPECT_TRUE(absl::IsInvalidArgument(SharedRegion::Create(options).status()));
  options.bytes = std::numeric_limits<uint64_t>::max();
  EXPECT_TRUE(absl::IsInvalidArgument(SharedRegion::Create(options).status()));
}

}  // namespace
}  // namespace odmoe
