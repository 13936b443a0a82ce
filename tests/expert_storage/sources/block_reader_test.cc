// Both readers over real files and over what only looks like one.
#include "services/expert_storage/sources/block_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/io/aligned_buffer.h"
#include "services/expert_storage/sources/io_tuning.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using File = std::shared_ptr<const OpenedFile>;

File Opened(const std::string& path, int flags = 0) {
  static uint64_t next = uint64_t{1} << 40;
  OwnedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | flags));
  return std::make_shared<OpenedFile>(std::move(fd), path, ++next, (flags & O_DIRECT) != 0);
}

class BlockReaderTest : public ::testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<BlockReader> Make(IoShape shape) {
    if (!GetParam()) return MakePreadReader(shape);
    auto reader = MakeUringReader(shape);
    return reader.ok() ? *std::move(reader) : nullptr;
  }
  void SetUp() override {
    if (Make({}) == nullptr) GTEST_SKIP() << "no io_uring here";
    std::string content(300'000, '\0');
    for (size_t i = 0; i < content.size(); ++i) content[i] = char(i * 7 + i / 251);
    WriteFileOrDie(path_, content);
    content_ = content;
  }

  absl::Status ReadNow(BlockReader& reader, const File& file, uint64_t offset,
                       absl::Span<std::byte> into) {
    absl::Status result;
    absl::Notification over;
    BlockRead read;
    read.extents.push_back({file, offset, into, into.size()});
    read.done = [&](absl::Status status) {
      result = std::move(status);
      over.Notify();
    };
    reader.Read(std::move(read));
    over.WaitForNotification();
    return result;
  }

  void ExpectReads(BlockReader& reader, const File& file, uint64_t offset,
                   absl::Span<std::byte> into) {
    const absl::Status status = ReadNow(reader, file, offset, into);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(content_.substr(offset, into.size()),
              std::string(reinterpret_cast<const char*>(into.data()), into.size()));
  }

  TemporaryDirectory directory_;
  const std::string path_ = directory_ / "file";
  std::string content_;
  AlignedBuffer memory_ = AlignedBuffer::Allocate(1 << 20).value();
};

TEST_P(BlockReaderTest, MoreFilesThanSlotsAndMemoryOfferedAndTakenBack) {
  const auto reader = Make({4, 16 << 10});
  // More than the kernel is told of, so that slots change hands.
  std::vector<File> files;
  for (int i = 0; i < 150; ++i) files.push_back(Opened(path_, i % 2 == 0 ? O_DIRECT : 0));
  ASSERT_GE(files[0]->fd.get(), 0);
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < files.size(); ++i) {
      ExpectReads(*reader, files[i], 1000 * i, memory_.span().subspan(i, 40'000));
    }
    // Where the limit of locked memory forbids it, nothing else changes.
    if (round == 0) reader->OfferMemory(memory_.span());
    if (round == 1) {
      reader->TakeBackMemory(memory_.span());
      // What is left are the reader's own buffers.
      EXPECT_LE(reader->gauges().registered_bytes, 4 * (16 << 10));
    }
  }
  EXPECT_GT(reader->gauges().requests, files.size());
  EXPECT_EQ(reader->gauges().reads_waiting, 0);
}

TEST_P(BlockReaderTest, FailuresAreTheReadsAlone) {
  const auto reader = Make({2, 16 << 10});
  const File file = Opened(path_);
  EXPECT_TRUE(absl::IsDataLoss(
      ReadNow(*reader, Opened(directory_ / "missing"), 0, memory_.span())));
  const absl::Status folder = ReadNow(*reader, Opened(directory_.path()), 0, memory_.span());
  EXPECT_TRUE(absl::IsDataLoss(folder)) << folder;
  // Of an address nobody has, the kernel says EIO.
  const absl::Status device = ReadNow(*reader, Opened("/proc/self/mem"), 0, memory_.span());
  EXPECT_TRUE(absl::IsDataLoss(device)) << device;
  const absl::Status end = ReadNow(*reader, file, content_.size() - 10, memory_.span().first(11));
  EXPECT_TRUE(absl::IsDataLoss(end)) << end;
  EXPECT_THAT(end.message(), ::testing::HasSubstr("ends at offset 300000"));
  ExpectReads(*reader, file, content_.size() - 10, memory_.span().first(10));
}

INSTANTIATE_TEST_SUITE_P(Readers, BlockReaderTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Uring" : "Pread"; });

// A pipe that nobody writes to hangs its readers, as a disk that died does.
TEST(UringReaderTest, AReadThatHangsLeavesTheQueueToOthers) {
  auto made = MakeUringReader({2, 4096});
  if (!made.ok()) GTEST_SKIP() << made.status();
  const std::unique_ptr<BlockReader> reader = *std::move(made);
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  OwnedFd writer(ends[1]);
  const auto pipe = std::make_shared<OpenedFile>(OwnedFd(ends[0]), "pipe", 7, false);
  const TemporaryDirectory directory;
  WriteFileOrDie(directory / "file", std::string(50'000, 'x'));
  auto memory = AlignedBuffer::Allocate(1 << 20).value();
  absl::Notification hung, over;
  absl::Status hung_status, status;
  BlockRead dead;
  dead.extents.push_back({pipe, 0, memory.span().first(40'960), 40'960});
  dead.done = [&](absl::Status s) {
    hung_status = std::move(s);
    hung.Notify();
  };
  reader->Read(std::move(dead));
  BlockRead alive;
  alive.extents.push_back({Opened(directory / "file"), 0, memory.span().subspan(500'000, 50'000),
                           50'000});
  alive.done = [&](absl::Status s) {
    status = std::move(s);
    over.Notify();
  };
  reader->Read(std::move(alive));
  over.WaitForNotification();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(memory.data()[549'999], std::byte{'x'});
  EXPECT_FALSE(hung.HasBeenNotified());
  writer = OwnedFd();  // now it says that there is no more
  hung.WaitForNotification();
  EXPECT_TRUE(absl::IsDataLoss(hung_status)) << hung_status;
}

TEST(PreadReaderTest, CallsThatHangOrFailLeaveTheThreadsToOthers) {
  const TemporaryDirectory directory;
  for (const char* name : {"bad", "good", "dead"}) {
    WriteFileOrDie(directory / name, std::string(50'000, *name));
  }
  const File bad = Opened(directory / "bad"), good = Opened(directory / "good");
  const File dead = Opened(directory / "dead");
  absl::Notification release;
  const auto reader = MakePreadReader(
      {2, 4096}, [&](int fd, void* into, size_t bytes, off_t offset) -> ssize_t {
        if (fd == dead->fd.get()) release.WaitForNotification();
        if (fd == bad->fd.get()) {
          errno = EIO;
          return -1;
        }
        // Short, as signals make it.
        return pread(fd, into, std::min<size_t>(bytes, 1000), offset);
      });
  auto memory = AlignedBuffer::Allocate(1 << 20).value();
  absl::Notification over[6];
  absl::Status status[6];
  const File files[] = {dead, dead, dead, bad, good, good};
  for (int i = 0; i < 6; ++i) {
    BlockRead read;
    read.extents.push_back({files[i], 0, memory.span().subspan(i * 100'000, 50'000), 50'000});
    read.done = [&, i](absl::Status s) {
      status[i] = std::move(s);
      over[i].Notify();
    };
    reader->Read(std::move(read));
  }
  for (int i : {3, 4, 5}) over[i].WaitForNotification();
  EXPECT_TRUE(absl::IsDataLoss(status[3])) << status[3];
  EXPECT_TRUE(status[4].ok() && status[5].ok()) << status[4] << status[5];
  EXPECT_EQ(memory.data()[549'999], std::byte{'g'});
  EXPECT_GE(reader->gauges().requests_stuck, 2);
  release.Notify();
  for (int i : {0, 1, 2}) over[i].WaitForNotification();
  EXPECT_TRUE(status[0].ok()) << status[0];
}

TEST(MeasureIoTest, TakesAShapeThatWorksAndTheDefaultWhereReadsFail) {
  const TemporaryDirectory directory;
  WriteFileOrDie(directory / "file", std::string(1 << 20, 'x'));
  const auto make = [](IoShape shape) { return MakePreadReader(shape); };
  const std::vector<TrialExtent> extents(3, {Opened(directory / "file"), 0, 1 << 20});
  const IoTuning tuning = MeasureIo(extents, make, absl::Milliseconds(20));
  EXPECT_GT(tuning.bytes_per_second, 0);
  EXPECT_LE(tuning.shape.bytes(), 32 << 20);
  const auto fails = [](IoShape shape) {
    return MakePreadReader(shape, [](int, void*, size_t, off_t) -> ssize_t {
      errno = EIO;
      return -1;
    });
  };
  EXPECT_EQ(MeasureIo(extents, fails, absl::Milliseconds(20)).bytes_per_second, 0);
  EXPECT_EQ(MeasureIo({}, make, absl::Milliseconds(20)).bytes_per_second, 0);
}

}  // namespace
}  // namespace odmoe
