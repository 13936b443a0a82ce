#include "clients/cli/exit_code.h"

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace odmoe {
namespace {

TEST(ExitCodeTest, TellsUsageInterruptionAndFailureApart) {
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCode(absl::InvalidArgumentError("bad file")), 1);
  EXPECT_EQ(ExitCode(UsageError("bad flag")), 2);
  EXPECT_EQ(ExitCode(absl::CancelledError("interrupted")), 130);
}

TEST(ErrorLineTest, IsOneLineWhateverTheMessageHolds) {
  EXPECT_EQ(ErrorLine(absl::NotFoundError("no such\r\nmodel")), "odmoe: no such model");
}

TEST(ErrorLineTest, NamesTheCodeWhereThereIsNoMessage) {
  EXPECT_EQ(ErrorLine(absl::UnavailableError("")), "odmoe: UNAVAILABLE");
}

TEST(ErrorDocumentTest, CarriesCodeAndMessage) {
  const auto json = nlohmann::json::parse(ErrorDocument(absl::NotFoundError("no \"x\"\nhere")));
  EXPECT_EQ(json["error"]["code"], "NOT_FOUND");
  EXPECT_EQ(json["error"]["message"], "no \"x\"\nhere");
}

TEST(ErrorDocumentTest, SurvivesBytesThatAreNotUtf8) {
  const auto json = nlohmann::json::parse(ErrorDocument(absl::NotFoundError("no \xff here")));
  EXPECT_EQ(json["error"]["message"], "no \xEF\xBF\xBD here");
}

}  // namespace
}  // namespace odmoe
