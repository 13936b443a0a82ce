#include "services/gateway/openai/completion_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "services/gateway/openai/api_error.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

CompletionRequest Parse(const std::string& body) {
  absl::StatusOr<CompletionRequest> request = ParseCompletionRequest(body);
  EXPECT_TRUE(request.ok()) << body << ": " << request.status();
  return request.value_or(CompletionRequest());
}

TEST(CompletionRequestTest, HasOpenAisDefaults) {
  const CompletionRequest request = Parse(R"({"prompt":"a"})");
  EXPECT_EQ(request.model, "");
  ASSERT_THAT(request.prompts, SizeIs(1));
  EXPECT_EQ(request.prompts[0].text, "a");
  EXPECT_EQ(request.generate.max_tokens, 16);
  EXPECT_EQ(request.generate.sampling.temperature, 1.0f);
  EXPECT_EQ(request.generate.sampling.top_p, 1.0f);
  EXPECT_EQ(request.generate.sampling.top_k, 0);
  EXPECT_EQ(request.generate.sampling.min_p, 0.0f);
  EXPECT_FALSE(request.generate.sampling.seed.has_value());
  EXPECT_FALSE(request.generate.logprobs);
  EXPECT_EQ(request.n, 1);
  EXPECT_FALSE(request.echo || request.stream || request.include_usage || request.logprobs);
}

TEST(CompletionRequestTest, ReadsEveryMember) {
  const CompletionRequest request = Parse(
      R"({"model":"m","prompt":"a","max_tokens":5,"temperature":0.5,"top_p":0.9,"top_k":40,)"
      R"("min_p":0.05,"seed":-1,"stop":["x","yy"],"n":2,"echo":true,"stream":true,)"
      R"("stream_options":{"include_usage":true},"user":"me","ignore_eos":true,)"
      R"("frequency_penalty":0,"presence_penalty":0.0,"logit_bias":{},"best_of":2,"suffix":null})");
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(request.generate.max_tokens, 5);
  EXPECT_FLOAT_EQ(request.generate.sampling.temperature, 0.5f);
  EXPECT_FLOAT_EQ(request.generate.sampling.top_p, 0.9f);
  EXPECT_EQ(request.generate.sampling.top_k, 40);
  EXPECT_FLOAT_EQ(request.generate.sampling.min_p, 0.05f);
  EXPECT_EQ(request.generate.sampling.seed, ~uint64_t{0});
  EXPECT_THAT(request.generate.stop, ElementsAre("x", "yy"));
  EXPECT_EQ(request.n, 2);
  EXPECT_TRUE(request.echo && request.stream && request.include_usage);
  EXPECT_TRUE(request.generate.ignore_eos);
}

TEST(CompletionRequestTest, NullIsAbsent) {
  const CompletionRequest request =
      Parse(R"({"prompt":"a","max_tokens":null,"stop":null,"logprobs":null,"stream":null})");
  EXPECT_EQ(request.generate.max_tokens, 16);
  EXPECT_THAT(request.generate.stop, SizeIs(0));
}

TEST(CompletionRequestTest, ReadsEveryFormOfPrompt) {
  EXPECT_THAT(Parse(R"({"prompt":[1,2,3]})").prompts[0].tokens, ElementsAre(1, 2, 3));
  const auto texts = Parse(R"({"prompt":["a","b"]})").prompts;
  ASSERT_THAT(texts, SizeIs(2));
  EXPECT_EQ(texts[1].text, "b");
  const auto lists = Parse(R"({"prompt":[[1],[2,2147483647]]})").prompts;
  ASSERT_THAT(lists, SizeIs(2));
  EXPECT_THAT(lists[1].tokens, ElementsAre(2, 2147483647));
}

TEST(CompletionRequestTest, ReadsLogprobsAndOneStop) {
  const CompletionRequest none = Parse(R"({"prompt":"a","logprobs":0,"stop":"z"})");
  EXPECT_EQ(none.logprobs, 0);
  EXPECT_TRUE(none.generate.logprobs);
  EXPECT_EQ(none.generate.top_logprobs, 0);
  EXPECT_THAT(none.generate.stop, ElementsAre("z"));
  EXPECT_EQ(Parse(R"({"prompt":"a","logprobs":5})").generate.top_logprobs, 5);
}

TEST(CompletionRequestTest, RefusesAndNamesWhatIsWrong) {
  const struct {
    std::string members, param;  // members beside "prompt":"a"
  } cases[] = {
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_tokens":-1)", "max_tokens"},
      {R"("max_tokens":1.5)", "max_tokens"},
      {R"("max_tokens":"5")", "max_tokens"},
      {R"("max_tokens":2147483648)", "max_tokens"},
      {R"("max_tokens":18446744073709551615)", "max_tokens"},
      {R"("temperature":-0.1)", "temperature"},
      {R"("temperature":2.1)", "temperature"},
      {R"("temperature":"hot")", "temperature"},
      {R"("temperature":1e308)", "temperature"},
      {R"("top_p":0)", "top_p"},
      {R"("top_p":1.01)", "top_p"},
      {R"("min_p":1)", "min_p"},
      {R"("min_p":-1)", "min_p"},
      {R"("top_k":-2)", "top_k"},
      {R"("top_k":1.0)", "top_k"},
      {R"("seed":18446744073709551615)", "seed"},
      {R"("seed":"s")", "seed"},
      {R"("stop":5)", "stop"},
      {R"("stop":"")", "stop"},
      {R"("stop":["a",""])", "stop"},
      {R"("stop":["a",1])", "stop"},
      {R"("stop":["a","b","c","d","e"])", "stop"},
      {R"("stop":{"a":1})", "stop"},
      {R"("n":0)", "n"},
      {R"("n":17)", "n"},
      {R"("echo":1)", "echo"},
      {R"("echo":true,"logprobs":1)", "echo"},
      {R"("logprobs":6)", "logprobs"},
      {R"("logprobs":-1)", "logprobs"},
      {R"("logprobs":true)", "logprobs"},
      {R"("stream":"yes")", "stream"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("stream":true,"stream_options":[])", "stream_options"},
      {R"("stream":true,"stream_options":{"x":1})", "stream_options"},
      {R"("stream":true,"stream_options":{"include_usage":1})", "include_usage"},
      {R"("model":7)", "model"},
      {R"("user":7)", "user"},
      {R"("frequency_penalty":0.5)", "frequency_penalty"},
      {R"("presence_penalty":-1)", "presence_penalty"},
      {R"("logit_bias":{"50256":-100})", "logit_bias"},
      {R"("best_of":3)", "best_of"},
      {R"("suffix":"end")", "suffix"},
      {R"("messages":[])", "messages"},
      {R"("max_token":5)", "max_token"},
  };
  for (const auto& [members, param] : cases) {
    const auto request = ParseCompletionRequest(absl::StrCat(R"({"prompt":"a",)", members, "}"));
    ASSERT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << members;
    const auto error = nlohmann::json::parse(ErrorJson(request.status()))["error"];
    EXPECT_EQ(error["param"], param) << members;
    EXPECT_EQ(error["type"], "invalid_request_error");
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(param));
  }
}

TEST(CompletionRequestTest, RefusesBadPrompts) {
  std::string many = R"({"prompt":["a")";
  for (int i = 0; i < 16; ++i) many += R"(,"a")";
  for (const std::string& body :
       {std::string("{}"), std::string(R"({"prompt":null})"), std::string(R"({"prompt":""})"),
        std::string(R"({"prompt":5})"), std::string(R"({"prompt":[]})"),
        std::string(R"({"prompt":[[]]})"), std::string(R"({"prompt":["a",""]})"),
        std::string(R"({"prompt":["a",1]})"), std::string(R"({"prompt":[1,"a"]})"),
        std::string(R"({"prompt":[-1]})"), std::string(R"({"prompt":[1.5]})"),
        std::string(R"({"prompt":[2147483648]})"), std::string(R"({"prompt":{"a":1}})"),
        std::string(R"({"prompt":[[[1]]]})"), many + "]}",
        std::string(R"({"prompt":["a","b"],"n":9})")}) {
    EXPECT_EQ(ParseCompletionRequest(body).status().code(), absl::StatusCode::kInvalidArgument)
        << body;
  }
}

TEST(CompletionRequestTest, RefusesWhatIsNoJsonObject) {
  const std::string deep(100'000, '[');
  std::string deep_object;
  for (int i = 0; i < 50'000; ++i) deep_object += R"({"a":)";
  for (const std::string& body :
       {std::string(), std::string("null"), std::string("[]"), std::string("\"a\""),
        std::string("{"), std::string(R"({"prompt":"a")"), std::string(R"({"prompt":"a"} x)"),
        std::string(R"({'prompt':'a'})"), std::string(R"({"prompt":"a",})"),
        std::string(R"({"prompt":"\ud800"})"), std::string("{\"prompt\":\"\xff\"}"),
        std::string("{\"prompt\":\"a\0b\"}", 16), std::string(R"({"prompt":1e999})"),
        std::string(R"({"prompt":"a","prompt":"b"})"), deep, deep_object,
        R"({"prompt":)" + deep}) {
    EXPECT_EQ(ParseCompletionRequest(body).status().code(), absl::StatusCode::kInvalidArgument)
        << body.substr(0, 60);
  }
}

}  // namespace
}  // namespace odmoe
