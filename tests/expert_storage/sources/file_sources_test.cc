// What files can do to the sources that read them. That they read what is there, the contract says.
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/base/units.h"
#include "services/core/io/aligned_buffer.h"
#include "services/expert_storage/sources/direct_expert_source.h"
#include "services/expert_storage/sources/mapped_expert_source.h"
#include "services/expert_storage/sources/open_expert_source.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;

enum class Kind { kMapped, kUring, kPread };

class FileSourcesTest : public ::testing::TestWithParam<Kind> {
 protected:
  FileSourcesTest() {
    MemoryExpertSource::RandomOptions options;
    options.dim = 160;
    options.ffn = 160;
    truth_ = WriteRandomExperts(directory_.path(), options);
    buffer_ = AlignedBuffer::Allocate(
                  RoundUp(truth_->catalog().max_expert_bytes(), kDirectIoAlignment))
                  .value();
  }

  std::unique_ptr<ExpertSource> Open() {
    auto places = std::move(FindPlaces(directory_.path()).value().places);
    if (GetParam() == Kind::kMapped) {
      return MappedExpertSource::Create(std::move(places), directory_.path()).value();
    }
    DirectExpertSource::Options options;
    options.directories = {directory_.path()};
    options.io_uring = GetParam() == Kind::kUring;
    return DirectExpertSource::Create(std::move(places), options).value();
  }

  void ExpectReads(ExpertSource& source, ExpertId id) {
    const absl::Status status = ReadAndWait(source, id, buffer_.span());
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(std::ranges::equal(truth_->Bytes(id),
                                   buffer_.span().first(truth_->Bytes(id).size())));
  }

  TemporaryDirectory directory_;
  std::unique_ptr<MemoryExpertSource> truth_;
  AlignedBuffer buffer_;
};

TEST_P(FileSourcesTest, AShortFileIsDataLossForItsExpertAlone) {
  const auto source = Open();
  const std::string path = ExpertPath(directory_.path(), {0, 1});
  for (const uint64_t size : {uint64_t{0}, kExpertDataOffset - 1, kExpertDataOffset,
                              std::filesystem::file_size(path) - 1}) {
    std::filesystem::resize_file(path, size);
    const absl::Status status = ReadAndWait(*source, {0, 1}, buffer_.span());
    EXPECT_TRUE(absl::IsDataLoss(status)) << size << ": " << status;
    EXPECT_THAT(status.message(), HasSubstr(path));
  }
  ExpectReads(*source, {0, 0});
}

TEST_P(FileSourcesTest, AMissingFileIsDataLossForItsExpertAlone) {
  const std::string path = ExpertPath(directory_.path(), {1, 2});
  std::filesystem::remove(path);
  const auto source = Open();
  const absl::Status status = ReadAndWait(*source, {1, 2}, buffer_.span());
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr(path));
  ExpectReads(*source, {1, 3});
}

TEST_P(FileSourcesTest, AFolderInAFilesPlaceIsDataLoss) {
  const std::string path = ExpertPath(directory_.path(), {1, 2});
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  const auto source = Open();
  EXPECT_TRUE(absl::IsDataLoss(ReadAndWait(*source, {1, 2}, buffer_.span())));
}

TEST_P(FileSourcesTest, TheFirstFileLostIsNotTheModelLost) {
  std::filesystem::remove(ExpertPath(directory_.path(), {0, 0}));
  const auto source = Open();
  EXPECT_TRUE(absl::IsDataLoss(ReadAndWait(*source, {0, 0}, buffer_.span())));
  ExpectReads(*source, {0, 1});
}

TEST_P(FileSourcesTest, AFileReplacedIsReadAsItWasOrIsDataLossAndHeals) {
  const auto source = Open();
  const std::string path = ExpertPath(directory_.path(), {0, 1});
  const std::string good = ReadFileOrDie(path);
  ExpectReads(*source, {0, 1});
  // By rename, as tools do: the descriptor still has what the registry names.
  const std::string other = directory_ / "other";
  WriteFileOrDie(other, std::string(good.size(), 'x'));
  std::filesystem::rename(other, path);
  ExpectReads(*source, {0, 1});
  // Removed: likewise.
  ExpectReads(*source, {0, 2});
  std::filesystem::remove(ExpertPath(directory_.path(), {0, 2}));
  ExpectReads(*source, {0, 2});
  // In place: another hash.
  ExpectReads(*source, {0, 3});
  CorruptExpert(directory_.path(), {0, 3});
  EXPECT_TRUE(absl::IsDataLoss(ReadAndWait(*source, {0, 3}, buffer_.span())));
  EXPECT_EQ(source->Stats().checksum_failures, 1);
  // A source that never saw the old file finds the new one corrupt, until it is repaired.
  const auto later = Open();
  EXPECT_TRUE(absl::IsDataLoss(ReadAndWait(*later, {0, 1}, buffer_.span())));
  WriteFileOrDie(other, good);
  std::filesystem::rename(other, path);
  ExpectReads(*later, {0, 1});
}

// Large enough that it is cut short in the middle of reads, and of copies out of a mapping.
TEST_P(FileSourcesTest, AFileCutShortWhileItIsReadIsDataLossAndNoFault) {
  MemoryExpertSource::RandomOptions options;
  options.dim = 512;
  options.ffn = 512;
  truth_ = WriteRandomExperts(directory_.path(), options);
  buffer_ = AlignedBuffer::Allocate(
                RoundUp(truth_->catalog().max_expert_bytes(), kDirectIoAlignment))
                .value();
  const auto source = Open();
  const std::string path = ExpertPath(directory_.path(), {0, 1});
  const auto size = std::filesystem::file_size(path);
  std::atomic<bool> stop{false};
  std::thread cutter([&] {
    // Whole for a while, of no fixed length, and cut for a shorter one: so it is cut at any point
    // of a read.
    for (std::mt19937 random(1); !stop;) {
      for (const bool whole : {true, false}) {
        std::filesystem::resize_file(path, whole ? size : size / 2);
        for (uint32_t looks = random() % (whole ? 4000 : 400); looks > 0 && !stop; --looks) {
          std::filesystem::file_size(path);
        }
      }
    }
  });
  for (int i = 0; i < 200; ++i) {
    const absl::Status status = ReadAndWait(*source, {0, 1}, buffer_.span());
    EXPECT_TRUE(status.ok() || absl::IsDataLoss(status)) << status;
  }
  stop = true;
  cutter.join();
  ExpectReads(*source, {0, 0});
}

TEST_P(FileSourcesTest, TellsWhatItDid) {
  const auto source = Open();
  ExpectReads(*source, {0, 0});
  ExpectReads(*source, {0, 0});
  const SourceStats stats = source->Stats();
  ASSERT_EQ(stats.disks.size(), 1);
  EXPECT_EQ(stats.disks[0].directory, directory_.path());
  EXPECT_EQ(stats.disks[0].reads, 2);
  EXPECT_EQ(stats.disks[0].bytes_read, 2 * truth_->Bytes({0, 0}).size());
  EXPECT_EQ(stats.disks[0].failures, 0);
  EXPECT_EQ(stats.disks[0].bytes_under_way, 0);
  EXPECT_EQ(stats.open_files, 1);
}

INSTANTIATE_TEST_SUITE_P(Kinds, FileSourcesTest,
                         ::testing::Values(Kind::kMapped, Kind::kUring, Kind::kPread),
                         [](const auto& info) {
                           return info.param == Kind::kMapped  ? "Mapped"
                                  : info.param == Kind::kUring ? "Uring"
                                                               : "Pread";
                         });

// tmpfs of a kernel before 6.5 has no O_DIRECT; a file system that has none must still be served.
TEST(OpenExpertSourceTest, EveryKindServesWhateverTheFileSystem) {
  const TemporaryDirectory directory;
  const auto truth = WriteRandomExperts(directory.path(), {});
  for (const SourceKind kind : {SourceKind::kAuto, SourceKind::kDirect, SourceKind::kMapped}) {
    SourceKind in_use = SourceKind::kAuto;
    const auto source = OpenExpertSource(directory.path(), kind, &in_use);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_NE(in_use, SourceKind::kAuto);
    EXPECT_TRUE(kind == SourceKind::kAuto || in_use == kind);
    auto buffer = AlignedBuffer::Allocate(truth->catalog().max_expert_bytes() + 4096).value();
    EXPECT_TRUE(ReadAndWait(**source, {1, 3}, buffer.span()).ok());
  }
}

}  // namespace
}  // namespace odmoe
