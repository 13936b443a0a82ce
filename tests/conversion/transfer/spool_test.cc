#include "services/conversion/transfer/spool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kFolder[] = "upload-1";

class SpoolTest : public ::testing::Test {
 protected:
  SpoolTest() { Open({}); }
  void Open(SpoolOptions options) {
    options.directory = folder_ / "spool";
    auto spool = Spool::Open(std::move(options));
    ASSERT_TRUE(spool.ok()) << spool.status();
    spool_ = *std::move(spool);
  }

  absl::Status Send(const std::string& name, const std::string& bytes, uint64_t offset = 0) {
    auto writer =
        spool_->Write(kFolder, name, bytes.size(), offset, FileHash::Of(bytes.substr(0, offset)));
    if (!writer.ok()) return writer.status();
    const std::string rest = bytes.substr(offset);
    if (!rest.empty()) {
      const absl::Status appended = (*writer)->Append(rest, FileHash::Of(rest));
      if (!appended.ok()) return appended;
    }
    return (*writer)->Finish(FileHash::Of(bytes)).status();
  }
  // A part of a file, cut off.
  void SendPart(const std::string& name, const std::string& part, uint64_t size) {
    const auto writer = *spool_->Write(kFolder, name, size, 0, 0);
    ASSERT_TRUE(writer->Append(part, FileHash::Of(part)).ok());
  }

  TemporaryDirectory folder_;
  std::unique_ptr<Spool> spool_;
};

TEST_F(SpoolTest, KeepsWhatItIsSent) {
  ASSERT_TRUE(Send("model/config.json", "{}").ok());
  ASSERT_TRUE(Send("model/deep/er/weights", std::string(100'000, 'w')).ok());
  ASSERT_TRUE(Send("empty", "").ok());
  const Upload upload = *spool_->Get(kFolder);
  ASSERT_THAT(upload.files, SizeIs(3));
  for (const UploadedFile& file : upload.files) EXPECT_TRUE(file.complete) << file.name;
  EXPECT_EQ(ReadFileOrDie(upload.directory + "/model/config.json"), "{}");
  EXPECT_EQ(ReadFileOrDie(upload.directory + "/model/deep/er/weights").size(), 100'000u);
  EXPECT_TRUE(Send("empty", "").ok());  // again is no error
  EXPECT_EQ(Send("empty", "x").code(), absl::StatusCode::kAlreadyExists);
  ASSERT_THAT(spool_->Get(kFolder, "model/config.json")->files, SizeIs(1));
  EXPECT_EQ(spool_->Get(kFolder, "model/config.json")->files[0].kept_bytes, 2u);
  EXPECT_THAT(spool_->Get(kFolder, "model/absent")->files, IsEmpty());
  EXPECT_EQ(spool_->Get(kFolder, "../x").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SpoolTest, GoesOnWhereItWasCutOff) {
  SendPart("file", "abc", 6);
  const Upload upload = *spool_->Get(kFolder);
  ASSERT_THAT(upload.files, SizeIs(1));
  EXPECT_EQ(upload.files[0].name, "file");
  EXPECT_EQ(upload.files[0].kept_bytes, 3u);
  EXPECT_FALSE(upload.files[0].complete);
  EXPECT_FALSE(fs::exists(upload.directory + "/file"));
  Open({});  // across a restart
  EXPECT_EQ(Send("file", "abcdef", 4).code(), absl::StatusCode::kOutOfRange);
  ASSERT_TRUE(Send("file", "abcdef", 3).ok());
  EXPECT_EQ(ReadFileOrDie(upload.directory + "/file"), "abcdef");
  EXPECT_FALSE(fs::exists(upload.directory + "/file.partial"));
}

TEST_F(SpoolTest, AnotherFilesPrefixIsDropped) {
  SendPart("file", "abc", 6);
  EXPECT_EQ(Send("file", "xyzdef", 3).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(spool_->Get(kFolder)->files[0].kept_bytes, 0u);
  EXPECT_TRUE(Send("file", "xyzdef").ok());
}

TEST_F(SpoolTest, WrongHashesAreFound) {
  auto writer = *spool_->Write(kFolder, "file", 6, 0, 0);
  ASSERT_TRUE(writer->Append("abc", FileHash::Of("abc")).ok());
  EXPECT_EQ(writer->Append("def", FileHash::Of("deg")).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(writer->Append("defg", FileHash::Of("defg")).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(writer->Finish(FileHash::Of("abc")).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(spool_->Get(kFolder)->files[0].kept_bytes, 3u);
  ASSERT_TRUE(writer->Append("def", FileHash::Of("def")).ok());
  EXPECT_EQ(writer->Finish(FileHash::Of("abcdeg")).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(spool_->Get(kFolder)->files[0].complete);
  EXPECT_EQ(spool_->Get(kFolder)->files[0].kept_bytes, 0u);
}

TEST_F(SpoolTest, OneWriterAFile) {
  auto writer = spool_->Write(kFolder, "file", 6, 0, 0);
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(Send("file", "abcdef").code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(Send("other", "abcdef").ok());
  EXPECT_EQ(spool_->Delete(kFolder).code(), absl::StatusCode::kFailedPrecondition);
  writer->reset();
  EXPECT_TRUE(Send("file", "abcdef").ok());
}

TEST_F(SpoolTest, HostileNamesLeadNowhere) {
  for (const std::string& name :
       {std::string(), std::string("/etc/x"), std::string("../x"), std::string("a/../../x"),
        std::string("a\0b", 3), std::string("a//b"), std::string("x.partial"),
        std::string(2000, 'x')}) {
    EXPECT_EQ(Send(name, "bytes").code(), absl::StatusCode::kInvalidArgument) << name;
  }
  for (const char* id : {"", "short", "../../../etc", "has space", "has/slash", "nul\0nul\0nul"}) {
    EXPECT_EQ(spool_->Write(id, "x", 1, 0, 0).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(spool_->Get(id).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(spool_->Delete(id).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(spool_->Write(std::string(65, 'i'), "x", 1, 0, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(spool_->Write(kFolder, "x", 1, 2, 0).status().code(), absl::StatusCode::kOutOfRange);
  ASSERT_TRUE(Send("good", "x").ok());
  // A link that a local user put there.
  TemporaryDirectory elsewhere;
  const std::string upload = spool_->Get(kFolder)->directory;
  fs::create_directory_symlink(elsewhere.path(), upload + "/link");
  EXPECT_EQ(Send("link/x", "bytes").code(), absl::StatusCode::kPermissionDenied);
  fs::create_symlink(elsewhere / "y", upload + "/y.partial");
  EXPECT_EQ(Send("y", "bytes").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(fs::is_empty(elsewhere.path()));
  WriteFileOrDie(elsewhere / "kept", "kept");
  EXPECT_TRUE(spool_->Delete(kFolder).ok());
  EXPECT_TRUE(fs::exists(elsewhere / "kept"));
}

TEST_F(SpoolTest, HoldsNoMoreThanItsQuota) {
  Open({.quota_bytes = 100});
  ASSERT_TRUE(Send("a", std::string(60, 'a')).ok());
  EXPECT_EQ(Send("b", std::string(41, 'b')).code(), absl::StatusCode::kResourceExhausted);
  // What an open writer is still to write counts, too.
  auto writer = spool_->Write(kFolder, "b", 40, 0, 0);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_EQ(Send("c", "c").code(), absl::StatusCode::kResourceExhausted);
  writer->reset();
  EXPECT_TRUE(Send("c", "c").ok());
  EXPECT_EQ(spool_->Write(kFolder, "d", ~uint64_t{0}, 0, 0).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(SpoolTest, ExpiresWhatNobodyUses) {
  bool in_use = true;
  Open(
      {.keep = absl::Hours(1), .in_use = [&](const std::string& directory) -> absl::StatusOr<bool> {
         EXPECT_EQ(fs::path(directory).filename(), kFolder);
         return in_use;
       }});
  ASSERT_TRUE(Send("a", "a").ok());
  EXPECT_GT(spool_->Get(kFolder)->expires, absl::Now());
  EXPECT_TRUE(spool_->Expire(absl::Now()).ok());
  EXPECT_TRUE(spool_->Get(kFolder).ok());
  EXPECT_EQ(spool_->Delete(kFolder).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(spool_->Expire(absl::Now() + absl::Hours(2)).ok());
  EXPECT_TRUE(spool_->Get(kFolder).ok());
  in_use = false;
  EXPECT_TRUE(spool_->Expire(absl::Now() + absl::Hours(2)).ok());
  EXPECT_EQ(spool_->Get(kFolder).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(spool_->Delete(kFolder).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace odmoe
