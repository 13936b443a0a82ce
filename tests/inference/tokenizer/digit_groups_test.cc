#include "services/inference/tokenizer/digit_groups.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Groups in brackets.
std::vector<std::string> Cut(absl::string_view text, DigitGroups groups) {
  std::vector<std::string> parts;
  for (const TextPart& part : CutDigitGroups(text, groups)) {
    parts.push_back(part.is_group ? absl::StrCat("[", part.text, "]") : std::string(part.text));
  }
  return parts;
}

TEST(DigitGroupsTest, CountFromTheRight) {
  EXPECT_THAT(Cut("1", DigitGroups::kNumbers), ElementsAre("[1]"));
  EXPECT_THAT(Cut("123", DigitGroups::kNumbers), ElementsAre("[123]"));
  EXPECT_THAT(Cut("1234567", DigitGroups::kNumbers), ElementsAre("[1]", "[234]", "[567]"));
  EXPECT_THAT(Cut("a12345b", DigitGroups::kNumbers), ElementsAre("a", "[12]", "[345]", "b"));
  EXPECT_THAT(Cut("٣٤٥٦½", DigitGroups::kNumbers), ElementsAre("[٣٤]", "[٥٦½]"));
  EXPECT_THAT(Cut("", DigitGroups::kNumbers), IsEmpty());
  EXPECT_THAT(Cut("ab", DigitGroups::kNumbers), ElementsAre("ab"));
}

TEST(DigitGroupsTest, NoneLeavesTheTextWhole) {
  EXPECT_THAT(Cut("a1234", DigitGroups::kNone), ElementsAre("a1234"));
}

TEST(DigitGroupsTest, DecimalsThatGoOnAsAWordAreLeft) {
  EXPECT_THAT(Cut("1234 5678x 9", DigitGroups::kDecimalsToTheEnd),
              ElementsAre("[1]", "[234]", " 5678x ", "[9]"));
  EXPECT_THAT(Cut("12½", DigitGroups::kDecimalsToTheEnd), ElementsAre("12½"));
}

}  // namespace
}  // namespace odmoe
