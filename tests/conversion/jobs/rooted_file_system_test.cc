#include "services/conversion/jobs/rooted_file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;

constexpr auto kDenied = absl::StatusCode::kPermissionDenied;

class RootedFileSystemTest : public ::testing::Test {
 protected:
  RootedFileSystemTest() : roots_(*PathRoots::Create({root_.path()})), files_(roots_) {
    fs::create_directory(root_ / "sub");
    WriteFileOrDie(root_ / "sub/file", "inside");
    WriteFileOrDie(elsewhere_ / "file", "outside");
  }

  TemporaryDirectory root_, elsewhere_;
  const PathRoots roots_;
  RootedFileSystem files_;
};

TEST_F(RootedFileSystemTest, DoesBelowTheRootsWhatTheProcessesFilesDo) {
  EXPECT_TRUE(files_.CreateDirectories(root_ / "new/deep").ok());
  auto out = files_.OpenForWrite(root_ / "new/deep/file.partial");
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_TRUE((*out)->Append("bytes").ok());
  EXPECT_TRUE((*out)->Sync().ok());
  EXPECT_TRUE(files_.Rename(root_ / "new/deep/file.partial", root_ / "new/deep/file").ok());
  EXPECT_TRUE(files_.SyncDirectory(root_ / "new/deep").ok());
  EXPECT_TRUE(files_.SyncFileSystem(root_ / "new").ok());
  EXPECT_EQ(*ReadWholeFile(files_, root_ / "new/deep/file", 100), "bytes");
  auto update = files_.OpenForUpdate(root_ / "new/deep/file");
  ASSERT_TRUE(update.ok()) << update.status();
  EXPECT_TRUE((*update)->WriteAt(0, absl::MakeConstSpan(
                                        reinterpret_cast<const std::byte*>("B"), 1)).ok());
  EXPECT_EQ(ReadFileOrDie(root_ / "new/deep/file"), "Bytes");
  EXPECT_THAT(*files_.ListDirectory(root_.path()), ElementsAre("new", "sub"));
  EXPECT_GT(*files_.FreeBytes(root_ / "absent/too"), 0u);
  EXPECT_EQ(files_.OpenForRead(root_ / "absent").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(files_.OpenForRead(root_ / "new").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(files_.ListDirectory(root_ / "absent").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(files_.Remove(root_ / "new/deep/file").ok());
  EXPECT_EQ(files_.Remove(root_ / "new/deep/file").code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(files_.Remove(root_ / "new/deep").ok());
  EXPECT_FALSE(fs::exists(root_ / "new/deep"));
}

// As Hugging Face's cache has them.
TEST_F(RootedFileSystemTest, FollowsLinksThatStayBelowTheRoots) {
  fs::create_symlink(root_ / "sub/file", root_ / "link");
  fs::create_directory_symlink(root_ / "sub", root_ / "folder");
  EXPECT_EQ(*ReadWholeFile(files_, root_ / "link", 100), "inside");
  EXPECT_EQ(*ReadWholeFile(files_, root_ / "folder/file", 100), "inside");
  EXPECT_THAT(*files_.ListDirectory(root_ / "folder"), ElementsAre("file"));
  // A name is given and removed where it is, not where it leads.
  EXPECT_TRUE(files_.Remove(root_ / "link").ok());
  EXPECT_TRUE(fs::exists(root_ / "sub/file"));
}

TEST_F(RootedFileSystemTest, IsNotLedOut) {
  fs::create_symlink(elsewhere_ / "file", root_ / "link");
  fs::create_symlink(elsewhere_ / "absent", root_ / "dangling");
  fs::create_directory_symlink(elsewhere_.path(), root_ / "folder");
  for (const std::string& path :
       {root_ / "link", root_ / "dangling", root_ / "folder/file", root_ / "folder/new",
        elsewhere_ / "file", root_ / "sub/../../x"}) {
    EXPECT_EQ(files_.OpenForRead(path).status().code(), kDenied) << path;
    EXPECT_EQ(files_.OpenForWrite(path).status().code(), kDenied) << path;
    EXPECT_EQ(files_.OpenForUpdate(path).status().code(), kDenied) << path;
    EXPECT_EQ(files_.CreateDirectories(path).code(), kDenied) << path;
  }
  EXPECT_EQ(files_.ListDirectory(root_ / "folder").status().code(), kDenied);
  EXPECT_EQ(files_.Remove(root_ / "folder/file").code(), kDenied);
  EXPECT_EQ(files_.Rename(root_ / "sub/file", root_ / "folder/file").code(), kDenied);
  EXPECT_EQ(files_.Rename(root_ / "folder/file", root_ / "sub/other").code(), kDenied);
  EXPECT_EQ(files_.Remove(root_ / "sub/..").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadFileOrDie(elsewhere_ / "file"), "outside");
  EXPECT_THAT(*PosixFileSystem().ListDirectory(elsewhere_.path()), ElementsAre("file"));
}

// Someone swaps a folder for a link and back, all the while: what is read is never from outside,
// and nothing is written there.
TEST_F(RootedFileSystemTest, ALinkPutThereBetweenTheCheckAndTheUseLeadsNowhere) {
  fs::create_directory_symlink(elsewhere_.path(), root_ / "aside");
  std::atomic<bool> stop = false;
  std::thread swapper([&] {
    while (!stop) {
      std::error_code error;
      fs::rename(root_ / "sub", root_ / "kept", error);
      fs::rename(root_ / "aside", root_ / "sub", error);
      fs::rename(root_ / "sub", root_ / "aside", error);
      fs::rename(root_ / "kept", root_ / "sub", error);
    }
  });
  for (int i = 0; i < 3000; ++i) {
    const auto read = ReadWholeFile(files_, root_ / "sub/file", 100);
    if (read.ok()) { EXPECT_EQ(*read, "inside"); }
    files_.OpenForWrite(root_ / "sub/new").status().IgnoreError();
    files_.Rename(root_ / "sub/new", root_ / "sub/newer").IgnoreError();
  }
  stop = true;
  swapper.join();
  EXPECT_THAT(*PosixFileSystem().ListDirectory(elsewhere_.path()), ElementsAre("file"));
}

}  // namespace
}  // namespace odmoe
