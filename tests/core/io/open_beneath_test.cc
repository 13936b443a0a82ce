#include "services/core/io/open_beneath.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

class OpenBeneathTest : public ::testing::Test {
 protected:
  OpenBeneathTest() : root_(::open(folder_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    fs::create_directories(folder_ / "a/b");
    WriteFileOrDie(folder_ / "a/b/file", "bytes");
  }
  absl::StatusCode Open(const std::string& name) {
    return OpenBeneath(root_.get(), name, O_RDONLY).status().code();
  }

  TemporaryDirectory folder_, elsewhere_;
  const OwnedFd root_;
};

TEST_F(OpenBeneathTest, OpensAndCreates) {
  EXPECT_EQ(Open("a/b/file"), absl::StatusCode::kOk);
  EXPECT_EQ(Open("a/b"), absl::StatusCode::kOk);
  EXPECT_EQ(Open("a/x"), absl::StatusCode::kNotFound);
  EXPECT_EQ(Open("x/y"), absl::StatusCode::kNotFound);
  EXPECT_EQ(Open("a/b/file/x"), absl::StatusCode::kNotFound);
  EXPECT_TRUE(OpenBeneath(root_.get(), "new/deep/file", O_RDWR | O_CREAT, true).ok());
  EXPECT_TRUE(fs::exists(folder_ / "new/deep/file"));
}

TEST_F(OpenBeneathTest, HostileNamesAreRefused) {
  for (const std::string& name :
       {std::string(), std::string("/etc/passwd"), std::string(".."), std::string("../x"),
        std::string("a/../../x"), std::string("a/./b"), std::string("a//b"), std::string("a/"),
        std::string("a\0b", 3), std::string(1025, 'x'), std::string(256, 'x')}) {
    EXPECT_EQ(CheckRelativeName(name, "name").code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(Open(name), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST_F(OpenBeneathTest, NoLinkIsFollowed) {
  WriteFileOrDie(elsewhere_ / "secret", "secret");
  fs::create_symlink(elsewhere_ / "secret", folder_ / "a/link");
  fs::create_directory_symlink(elsewhere_.path(), folder_ / "a/folder");
  fs::create_directory_symlink(folder_ / "a/b", folder_ / "inside");
  EXPECT_EQ(Open("a/link"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Open("a/folder/secret"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Open("inside/file"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(OpenBeneath(root_.get(), "a/folder/new", O_RDWR | O_CREAT, true).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_FALSE(fs::exists(elsewhere_ / "new"));
  // A path that was resolved, and then turned aside.
  const std::string resolved = fs::canonical(folder_ / "a/b/file");
  EXPECT_TRUE(OpenResolved(resolved, O_RDONLY).ok());
  fs::remove_all(folder_ / "a/b");
  fs::create_directory_symlink(elsewhere_.path(), folder_ / "a/b");
  WriteFileOrDie(elsewhere_ / "file", "other");
  EXPECT_EQ(OpenResolved(resolved, O_RDONLY).status().code(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace odmoe
