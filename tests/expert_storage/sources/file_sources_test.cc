// What files can do to the sources that read them. That they read what is there, the contract says.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/base/units.h"
#include "services/core/formats/model_directory.h"
#include "services/core/io/aligned_buffer.h"
#include "services/expert_storage/open_expert_store.h"
#include "services/expert_storage/sources/direct_expert_source.h"
#include "services/expert_storage/sources/mapped_expert_source.h"
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
    options.dim = 320;
    options.ffn = 320;
    truth_ = WriteRandomExperts(directory_.path(), options);
    buffer_ = AlignedBuffer::Allocate(
                  RoundUp(truth_->catalog().max_expert_bytes(), kDirectIoAlignment))
                  .value();
  }

  std::unique_ptr<ExpertSource> Open() {
    ExpertRegistry registry = ReadExpertRegistry(directory_.path()).value();
    if (GetParam() == Kind::kMapped) {
      return std::make_unique<MappedExpertSource>(std::move(registry));
    }
    DirectExpertSource::Options options;
    options.io_uring = GetParam() == Kind::kUring;
    return DirectExpertSource::Create(std::move(registry), options).value();
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

TEST(UringReaderTest, AClosedDescriptorFailsTheReadNotTheReader) {
  auto reader = MakeUringReader(2);
  if (absl::IsUnimplemented(reader.status())) GTEST_SKIP() << reader.status();
  const TemporaryDirectory directory;
  WriteFileOrDie(directory / "file", std::string(3 << 20, 'x'));
  auto buffer = AlignedBuffer::Allocate(3 << 20).value();
  const auto read = [&](int fd) {
    absl::Status result;
    absl::Notification done;
    (*reader)->Read({fd, "file", 0, buffer.span(), buffer.size()}, [&](absl::Status status) {
      result = std::move(status);
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  };
  EXPECT_TRUE(absl::IsDataLoss(read(-1)));
  const int fd = open((directory / "file").c_str(), O_RDONLY | O_CLOEXEC);
  const absl::Status status = read(fd);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(buffer.data()[(3 << 20) - 1], std::byte{'x'});
  close(fd);
}

TEST(BlockReaderTest, AFileThatEndsWhileItIsReadIsDataLoss) {
  const TemporaryDirectory directory;
  WriteFileOrDie(directory / "file", std::string(10'000, 'x'));
  auto buffer = AlignedBuffer::Allocate(16'384).value();
  std::vector<std::unique_ptr<BlockReader>> readers;
  readers.push_back(MakePreadReader(1));
  if (auto uring = MakeUringReader(4); uring.ok()) readers.push_back(*std::move(uring));
  for (const auto& reader : readers) {
    const int fd = open((directory / "file").c_str(), O_RDONLY | O_CLOEXEC);
    for (const auto& [needed, ok] : {std::pair<uint64_t, bool>{10'000, true}, {10'001, false}}) {
      absl::Status result;
      absl::Notification done;
      reader->Read({fd, "file", 0, buffer.span(), needed}, [&](absl::Status status) {
        result = std::move(status);
        done.Notify();
      });
      done.WaitForNotification();
      EXPECT_EQ(result.code(), ok ? absl::StatusCode::kOk : absl::StatusCode::kDataLoss) << result;
    }
    close(fd);
  }
}

}  // namespace
}  // namespace odmoe
