#include "services/core/io/path_roots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

class PathRootsTest : public ::testing::Test {
 protected:
  PathRootsTest() {
    fs::create_directories(folder_ / "root/models");
    fs::create_directories(folder_ / "outside");
    fs::create_directories(folder_ / "root-beside");
    WriteFileOrDie(folder_ / "root/models/a.gguf", "a");
    WriteFileOrDie(folder_ / "outside/secret", "s");
    roots_ = *PathRoots::Create({folder_ / "root"});
  }

  absl::StatusOr<std::string> Resolve(const std::string& path) {
    return roots_.Resolve(path, "source_path");
  }

  void ExpectDenied(const std::string& path) {
    const auto resolved = Resolve(path);
    EXPECT_EQ(resolved.status().code(), absl::StatusCode::kPermissionDenied)
        << path << " -> " << resolved.status() << " " << resolved.value_or("");
    EXPECT_THAT(std::string(resolved.status().message()), HasSubstr(path));
  }

  TemporaryDirectory folder_;
  PathRoots roots_;
};

TEST_F(PathRootsTest, AllowsWhatIsBelowARoot) {
  const std::string root = fs::canonical(folder_ / "root").string();
  EXPECT_EQ(*Resolve(folder_ / "root/models/a.gguf"), root + "/models/a.gguf");
  EXPECT_EQ(*Resolve(folder_ / "root/new/folder/b.gguf"), root + "/new/folder/b.gguf");
  EXPECT_EQ(*Resolve(folder_ / "root//models/./../models/a.gguf"), root + "/models/a.gguf");
  EXPECT_EQ(*Resolve(folder_ / "root/models/"), root + "/models");
}

TEST_F(PathRootsTest, FollowsLinksThatStayBelowARoot) {
  fs::create_symlink(folder_ / "root/models", folder_ / "root/link");
  EXPECT_EQ(*Resolve(folder_ / "root/link/a.gguf"),
            fs::canonical(folder_ / "root/models/a.gguf").string());
}

TEST_F(PathRootsTest, DeniesWhatIsOutside) {
  ExpectDenied("/etc/passwd");
  ExpectDenied("/");
  ExpectDenied("/no/such/place");
  ExpectDenied(folder_ / "outside/secret");
  ExpectDenied(folder_ / "root/../outside/secret");
  ExpectDenied(folder_ / "root-beside/x");  // "root" is a prefix of its name only
  ExpectDenied("/proc/self/root/etc/passwd");
}

TEST_F(PathRootsTest, DeniesLinksThatLeadOut) {
  fs::create_symlink(folder_ / "outside", folder_ / "root/escape");
  fs::create_symlink(folder_ / "outside/secret", folder_ / "root/file");
  fs::create_symlink("../outside", folder_ / "root/relative");
  ExpectDenied(folder_ / "root/escape/secret");
  ExpectDenied(folder_ / "root/escape/new.gguf");
  ExpectDenied(folder_ / "root/file");
  ExpectDenied(folder_ / "root/relative/secret");
}

TEST_F(PathRootsTest, DeniesLinksThatLeadNowhere) {
  fs::create_symlink(folder_ / "outside/not-yet", folder_ / "root/dangling");
  fs::create_symlink(folder_ / "root/loop", folder_ / "root/loop");
  ExpectDenied(folder_ / "root/dangling");
  ExpectDenied(folder_ / "root/dangling/x");
  ExpectDenied(folder_ / "root/loop");
}

TEST_F(PathRootsTest, DenialsDoNotTellWhatIsThere) {
  const auto present = Resolve(folder_ / "outside/secret");
  const auto absent = Resolve(folder_ / "outside/absent");
  EXPECT_EQ(present.status().code(), absent.status().code());
  fs::create_symlink(folder_ / "outside", folder_ / "root/escape");
  EXPECT_THAT(std::string(Resolve(folder_ / "root/escape/x").status().message()),
              Not(HasSubstr("outside")));
}

TEST_F(PathRootsTest, RefusesMalformedPaths) {
  const std::string nul("/tmp/a\0b", 8);
  for (const std::string& path : {std::string(), std::string("models/a.gguf"), std::string("~/a"),
                                  nul, "/" + std::string(5000, 'a'),
                                  folder_ / "root/absent/../../outside/secret"}) {
    EXPECT_EQ(Resolve(path).status().code(), absl::StatusCode::kInvalidArgument) << path;
  }
}

TEST_F(PathRootsTest, WithoutRootsAllowsAll) {
  const PathRoots free = *PathRoots::Create({});
  EXPECT_EQ(*free.Resolve(folder_ / "outside/secret", "x"),
            fs::canonical(folder_ / "outside/secret").string());
  EXPECT_EQ(*free.Resolve("relative.gguf", "x"), (fs::current_path() / "relative.gguf").string());
}

TEST_F(PathRootsTest, RootsMustBeFolders) {
  EXPECT_EQ(PathRoots::Create({folder_ / "absent"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(PathRoots::Create({folder_ / "outside/secret"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace odmoe
