#include "services/core/formats/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace odmoe {
namespace {

using testing::HasSubstr;

std::string Refusal(absl::string_view text) {
  const auto json = ParseJson(text, "file.json");
  EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(json.status().message());
}

TEST(ParseJsonTest, SaysWhereItStops) {
  EXPECT_THAT(Refusal("{\"a\": tru}"), HasSubstr("file.json: not valid JSON"));
  EXPECT_THAT(Refusal("{\"a\": tru}"), HasSubstr("column"));
  EXPECT_THAT(Refusal(""), HasSubstr("unexpected end"));
  EXPECT_THAT(Refusal("{} x"), HasSubstr("not valid JSON"));
  EXPECT_THAT(Refusal("[1e999]"), HasSubstr("not valid JSON"));
  EXPECT_THAT(Refusal("\"\xff\""), HasSubstr("not valid JSON"));
}

TEST(ParseJsonTest, RefusesAKeyThatComesTwiceAtAnyDepth) {
  EXPECT_THAT(Refusal(R"({"a":1,"a":2})"), HasSubstr("'a' is there twice"));
  EXPECT_THAT(Refusal(R"({"x":[{"b":1,"c":{},"b":2}]})"), HasSubstr("'b' is there twice"));
  EXPECT_TRUE(ParseJson(R"({"a":{"a":1},"b":{"a":1}})", "file.json").ok());
}

TEST(ParseJsonTest, RefusesNestingWithoutBound) {
  EXPECT_THAT(Refusal(std::string(100000, '[') + std::string(100000, ']')), HasSubstr("nested"));
  EXPECT_THAT(Refusal(std::string(5000000, '[')), HasSubstr("nested"));
  std::string objects;
  for (int i = 0; i < 1000; ++i) objects += "{\"a\":";
  EXPECT_THAT(Refusal(objects), HasSubstr("nested"));
  EXPECT_TRUE(ParseJson(std::string(60, '[') + std::string(60, ']'), "file.json").ok());
}

TEST(JsonObjectTest, NamesTheMemberAndWhatItShouldBe) {
  const auto json = ParseJson(R"({"n":3,"s":"x","o":{"k":[]},"z":null})", "file.json");
  const auto object = JsonObject::From(*json, "file.json");
  ASSERT_TRUE(object.ok());
  EXPECT_EQ(*object->Int("n", 0, 3), 3);
  EXPECT_THAT(std::string(object->Int("n", 0, 2).status().message()),
              HasSubstr("'n' should be an integer from 0 to 2 and is 3"));
  EXPECT_THAT(std::string(object->String("n").status().message()), HasSubstr("a string and is 3"));
  EXPECT_THAT(std::string(object->U64("missing").status().message()), HasSubstr("missing"));
  EXPECT_TRUE(object->Object("o")->Array("k").ok());
  EXPECT_FALSE(object->Has("z"));
  EXPECT_EQ(JsonObject::From((*json)["n"], "x").status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace odmoe
