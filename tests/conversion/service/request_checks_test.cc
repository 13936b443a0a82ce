#include "services/conversion/service/request_checks.h"

#include <gtest/gtest.h>

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;

TEST(RequestChecksTest, FieldsAreChecked) {
  EXPECT_FALSE(CheckJobId("").ok());
  EXPECT_FALSE(CheckJobId(std::string(65, 'x')).ok());
  EXPECT_TRUE(CheckRequestId("").ok());
  EXPECT_FALSE(CheckRequestId(std::string(129, 'x')).ok());
  EXPECT_EQ(*CheckPageSize(0), 100);
  EXPECT_EQ(*CheckPageSize(1000), 1000);
  EXPECT_FALSE(CheckPageSize(1001).ok());
  EXPECT_FALSE(CheckPageSize(-1).ok());
  v1::WatchJobRequest watch;
  EXPECT_EQ(*CheckAfterVersion(watch), -1);
  watch.set_after_version(0);
  EXPECT_EQ(*CheckAfterVersion(watch), 0);
  watch.set_after_version(-1);
  EXPECT_FALSE(CheckAfterVersion(watch).ok());
}

}  // namespace
}  // namespace odmoe
