#include "services/gateway/openai/api_keys.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

TEST(ApiKeysTest, WithoutKeysEveryoneIsAllowed) {
  EXPECT_TRUE(ApiKeys().Allows(""));
  EXPECT_TRUE(ApiKeys().Allows("Bearer x"));
}

TEST(ApiKeysTest, AllowsItsKeysAlone) {
  const ApiKeys keys({"one", "two"});
  EXPECT_TRUE(keys.Allows("Bearer one"));
  EXPECT_TRUE(keys.Allows("bearer two "));
  for (const char* header : {"", "Bearer", "Bearer ", "Bearer on", "Bearer onee", "Bearer one two",
                             "one", "Basic one", "Bearer ONE"}) {
    EXPECT_FALSE(keys.Allows(header)) << header;
  }
}

TEST(ApiKeysTest, ReadsAFile) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "keys", "# ours\n\n one \r\ntwo");
  const auto keys = ApiKeys::ReadFile(folder / "keys");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_TRUE(keys->Allows("Bearer one"));
  EXPECT_TRUE(keys->Allows("Bearer two"));
  EXPECT_FALSE(keys->Allows("Bearer # ours"));
}

TEST(ApiKeysTest, RefusesAFileThatWouldLetEveryoneIn) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "empty", "# nothing\n\n");
  WriteFileOrDie(folder / "spaced", "one two\n");
  EXPECT_EQ(ApiKeys::ReadFile(folder / "empty").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ApiKeys::ReadFile(folder / "spaced").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ApiKeys::ReadFile(folder / "absent").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace odmoe
