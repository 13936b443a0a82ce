#include "services/inference/sampling/text_stream.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/base/utf8.h"

namespace odmoe {
namespace {

TEST(TextStreamTest, TextWithoutStopsPassesThrough) {
  TextStream stream({});
  EXPECT_EQ(stream.Append("It was "), "It was ");
  EXPECT_EQ(stream.Append(""), "");
  EXPECT_EQ(stream.Append("dark"), "dark");
  EXPECT_EQ(stream.Finish(), "");
  EXPECT_FALSE(stream.stopped());
}

TEST(TextStreamTest, CharacterIsShownOnceItIsWhole) {
  TextStream stream({});
  EXPECT_EQ(stream.Append("\xF0\x9F"), "");
  EXPECT_EQ(stream.Append("\xA6"), "");
  EXPECT_EQ(stream.Append("\x99!"), "🦙!");
}

TEST(TextStreamTest, IncompleteCharacterAtTheEndIsReplaced) {
  TextStream stream({});
  EXPECT_EQ(stream.Append("caf\xC3"), "caf");
  EXPECT_EQ(stream.Finish(), "\uFFFD");
}

TEST(TextStreamTest, InvalidBytesAreReplacedOnePerMaximalSubpart) {
  TextStream stream({});
  EXPECT_EQ(stream.Append("a\xFF\xE6\x97z\xED\xA0\x80"), "a\uFFFD\uFFFDz\uFFFD\uFFFD\uFFFD");
}

TEST(TextStreamTest, StopStringAndWhatFollowsAreNotShown) {
  TextStream stream({"END"});
  EXPECT_EQ(stream.Append("the END of"), "the ");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.Append("more"), "");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStreamTest, StopStringStraddlingTokensIsHeldBack) {
  TextStream stream({"\n\nUser:"});
  EXPECT_EQ(stream.Append("yes.\n"), "yes.");
  EXPECT_EQ(stream.Append("\nUs"), "");
  EXPECT_EQ(stream.Append("er: next"), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStreamTest, HeldBackTextIsShownWhenItCannotBecomeAStop) {
  TextStream stream({"abcd"});
  EXPECT_EQ(stream.Append("xabc"), "x");
  EXPECT_EQ(stream.Append("ab"), "abc");
  EXPECT_EQ(stream.Finish(), "ab");
}

TEST(TextStreamTest, FirstCompleteStopWins) {
  TextStream stream({"night", "dark"});
  EXPECT_EQ(stream.Append("a dark night"), "a ");
}

TEST(TextStreamTest, LongestOfTheStopsCompleteTogetherIsCut) {
  TextStream stream({"k", "ark", "rk"});
  EXPECT_EQ(stream.Append("dark"), "d");
}

TEST(TextStreamTest, EmptyAndInvalidStopsNeverMatch) {
  TextStream stream({"", "\x80", "\xC3"});
  EXPECT_EQ(stream.Append("é\x80"), "é\uFFFD");
  EXPECT_FALSE(stream.stopped());
}

TEST(TextStreamTest, StopOfAReplacementCharacterMatchesAnIncompleteEnd) {
  TextStream stream({"\uFFFD"});
  EXPECT_EQ(stream.Append("ok\xE6"), "ok");
  EXPECT_EQ(stream.Finish(), "");
  EXPECT_TRUE(stream.stopped());
}

// The definition, taken literally over the whole text.
std::string ExpectedOutput(const std::string& bytes, const std::vector<std::string>& stops) {
  std::string text;
  for (absl::string_view rest = bytes; !rest.empty();) {
    const Utf8Prefix prefix = ReadUtf8Prefix(rest);
    const bool valid = prefix.kind == Utf8Prefix::Kind::kCharacter;
    text += valid ? std::string(rest.substr(0, prefix.length)) : "\uFFFD";
    rest.remove_prefix(prefix.length);
  }
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

TEST(TextStreamTest, OutputDoesNotDependOnHowTheBytesWereCut) {
  std::mt19937 random(7);
  // A small alphabet, so that stops, near misses and broken characters are frequent.
  const std::vector<std::string> alphabet = {"a", "b", "\xC3", "\xA9", "é", "\xF0\x9F"};
  const auto draw = [&](size_t letters) {
    std::string out;
    for (size_t i = 0; i < letters; ++i) out += alphabet[random() % alphabet.size()];
    return out;
  };
  for (int round = 0; round < 5000; ++round) {
    const std::string bytes = draw(random() % 24);
    std::vector<std::string> stops;
    for (size_t i = random() % 3; i > 0; --i) {
      const std::string stop = draw(1 + random() % 4);
      if (FirstInvalidUtf8(stop) == stop.size()) stops.push_back(stop);
    }
    TextStream stream(stops);
    std::string shown;
    for (size_t at = 0; at < bytes.size();) {
      const size_t length = std::min<size_t>(1 + random() % 5, bytes.size() - at);
      const std::string now = stream.Append(bytes.substr(at, length));
      EXPECT_EQ(FirstInvalidUtf8(now), now.size());
      shown += now;
      at += length;
    }
    shown += stream.Finish();
    ASSERT_EQ(shown, ExpectedOutput(bytes, stops)) << "round " << round;
  }
}

}  // namespace
}  // namespace odmoe
