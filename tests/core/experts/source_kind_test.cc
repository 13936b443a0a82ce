#include "services/core/experts/source_kind.h"

#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(SourceKindTest, NamesAreReadBack) {
  for (SourceKind kind : {SourceKind::kAuto, SourceKind::kDirect, SourceKind::kMapped}) {
    EXPECT_EQ(ParseSourceKind(SourceKindName(kind)).value(), kind);
  }
  for (const char* text : {"", "Direct", "mapped", "direct "}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseSourceKind(text).status())) << text;
  }
}

}  // namespace
}  // namespace odmoe
