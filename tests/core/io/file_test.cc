#include "services/core/io/file.h"

#include <sys/stat.h>

#include <cstring>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/core/io/aligned_buffer.h"
#include "services/core/io/mapped_file.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

FileSystem& Fs() { return PosixFileSystem(); }

TEST(PosixFileSystemTest, ReadsAnyRangeOfAFile) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "file", "0123456789");
  const auto file = Fs().OpenForRead(folder / "file");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size(), 10u);
  char text[4] = {};
  const auto out = absl::MakeSpan(reinterpret_cast<std::byte*>(text), 3);
  ASSERT_EQ((*file)->ReadAt(7, out), absl::OkStatus());
  EXPECT_STREQ(text, "789");
}

TEST(PosixFileSystemTest, RefusesToReadPastTheEndAndSaysWhere) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "file", "0123456789");
  const auto file = Fs().OpenForRead(folder / "file");
  std::byte out[4];
  for (uint64_t offset : {uint64_t{7}, uint64_t{11}, ~uint64_t{0}}) {
    const absl::Status status = (*file)->ReadAt(offset, absl::MakeSpan(out));
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(offset)));
  }
}

TEST(PosixFileSystemTest, TellsAFileThatShrankWhileItWasOpen) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "file", "0123456789");
  const auto file = Fs().OpenForRead(folder / "file");
  std::filesystem::resize_file(folder / "file", 4);
  std::byte out[8];
  EXPECT_EQ((*file)->ReadAt(0, absl::MakeSpan(out)).code(), absl::StatusCode::kOutOfRange);
}

TEST(PosixFileSystemTest, OpensOnlyRegularFiles) {
  TemporaryDirectory folder;
  EXPECT_EQ(Fs().OpenForRead(folder / "missing").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Fs().OpenForRead(folder.path()).status().code(), absl::StatusCode::kInvalidArgument);
  // Nobody writes to it: an open that waited for a writer would hang.
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(Fs().OpenForRead(folder / "fifo").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(PosixFileSystemTest, ListsAFoldersNamesSorted) {
  TemporaryDirectory folder;
  for (const char* name : {"b", "a", "c"}) WriteFileOrDie(folder / name, "");
  const auto names = Fs().ListDirectory(folder.path());
  ASSERT_TRUE(names.ok()) << names.status();
  EXPECT_THAT(*names, ElementsAre("a", "b", "c"));
  EXPECT_EQ(Fs().ListDirectory(folder / "a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Fs().ListDirectory(folder / "none").status().code(), absl::StatusCode::kNotFound);
}

TEST(PosixFileSystemTest, KnowsFreeBytesOfAPathThatDoesNotExistYet) {
  TemporaryDirectory folder;
  const auto here = Fs().FreeBytes(folder.path());
  const auto below = Fs().FreeBytes(folder / "not/yet/there");
  ASSERT_TRUE(here.ok()) << here.status();
  ASSERT_TRUE(below.ok()) << below.status();
  EXPECT_GT(*below, 0u);
  EXPECT_TRUE(Fs().FreeBytes("relative/not/there").ok());
}

TEST(PosixFileSystemTest, WritesInPlaceAndAtTheEnd) {
  TemporaryDirectory folder;
  auto file = Fs().OpenForWrite(folder / "file");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->Append("hello world"), absl::OkStatus());
  const char patch[] = "HELLO";
  ASSERT_EQ((*file)->WriteAt(
                0, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(patch), 5)),
            absl::OkStatus());
  EXPECT_EQ((*file)->offset(), 11u);
  ASSERT_EQ((*file)->Close(), absl::OkStatus());
  EXPECT_EQ(ReadFileOrDie(folder / "file"), "HELLO world");
}

TEST(ReadWholeFileTest, RefusesMoreThanItsLimit) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "file", "0123456789");
  EXPECT_EQ(*ReadWholeFile(Fs(), folder / "file", 10), "0123456789");
  const auto refused = ReadWholeFile(Fs(), folder / "file", 9);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("10 bytes"));
}

TEST(AtomicFileTest, IsSeenOnlyAfterCommit) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "file", "old");
  {
    auto file = AtomicFile::Create(Fs(), folder / "file");
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_EQ((*file)->file().Append("new"), absl::OkStatus());
    EXPECT_EQ(ReadFileOrDie(folder / "file"), "old");
    ASSERT_EQ((*file)->Commit(), absl::OkStatus());
  }
  EXPECT_EQ(ReadFileOrDie(folder / "file"), "new");
  EXPECT_FALSE(std::filesystem::exists(folder / "file.partial"));
}

TEST(AtomicFileTest, LeavesNothingWithoutCommit) {
  TemporaryDirectory folder;
  {
    auto file = AtomicFile::Create(Fs(), folder / "file");
    ASSERT_EQ((*file)->file().Append("new"), absl::OkStatus());
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(AtomicFileTest, OverwritesAStalePartial) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "file.partial", "much longer than what comes now");
  auto file = AtomicFile::Create(Fs(), folder / "file");
  ASSERT_EQ((*file)->file().Append("new"), absl::OkStatus());
  ASSERT_EQ((*file)->Commit(), absl::OkStatus());
  EXPECT_EQ(ReadFileOrDie(folder / "file"), "new");
}

TEST(MappedFileTest, ShowsTheFilesBytes) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "file", "0123456789");
  WriteFileOrDie(folder / "empty", "");
  const auto mapped = MappedFile::Open(folder / "file");
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  ASSERT_EQ((*mapped)->bytes().size(), 10u);
  EXPECT_EQ(std::memcmp((*mapped)->bytes().data(), "0123456789", 10), 0);
  const auto empty = MappedFile::Open(folder / "empty");
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_TRUE((*empty)->bytes().empty());
  EXPECT_EQ(MappedFile::Open(folder.path()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MappedFile::Open(folder / "no").status().code(), absl::StatusCode::kNotFound);
}

TEST(AlignedBufferTest, IsAlignedZeroedAndOfTheSizeAskedFor) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{4096}, size_t{5000}}) {
    auto buffer = AlignedBuffer::Allocate(size);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    EXPECT_EQ(buffer->size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % kDirectIoAlignment, 0u);
    for (std::byte b : buffer->span()) EXPECT_EQ(b, std::byte{0});
  }
}

TEST(AlignedBufferTest, RefusesWhatCannotBeAllocated) {
  EXPECT_EQ(AlignedBuffer::Allocate(~size_t{0}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(AlignedBuffer::Allocate(64, 48).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace odmoe
