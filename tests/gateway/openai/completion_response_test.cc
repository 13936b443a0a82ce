#include "services/gateway/openai/completion_response.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "services/gateway/openai/api_error.h"

namespace odmoe {
namespace {

using nlohmann::json;

CompletionMessage Message() {
  CompletionMessage message;
  message.id = "cmpl-1";
  message.created = 1'700'000'000;
  message.model = "m";
  Choice choice;
  choice.text = "text";
  choice.finish_reason = FinishReason::kLength;
  message.choices.push_back(choice);
  return message;
}

TEST(CompletionResponseTest, HasOpenAisShape) {
  CompletionMessage message = Message();
  message.usage_member = CompletionMessage::UsageMember::kPresent;
  message.usage = {3, 4};
  EXPECT_EQ(json::parse(CompletionJson(message)),
            json::parse(R"({"id":"cmpl-1","object":"text_completion","created":1700000000,)"
                        R"("model":"m","choices":[{"index":0,"text":"text","logprobs":null,)"
                        R"("finish_reason":"length"}],"usage":{"prompt_tokens":3,)"
                        R"("completion_tokens":4,"total_tokens":7}})"));
}

TEST(CompletionResponseTest, UsageIsAbsentOrNullInChunks) {
  CompletionMessage message = Message();
  message.choices[0].finish_reason.reset();
  EXPECT_FALSE(json::parse(CompletionJson(message)).contains("usage"));
  EXPECT_TRUE(json::parse(CompletionJson(message))["choices"][0]["finish_reason"].is_null());
  message.usage_member = CompletionMessage::UsageMember::kNull;
  EXPECT_TRUE(json::parse(CompletionJson(message))["usage"].is_null());
}

TEST(CompletionResponseTest, TellsTheCost) {
  CompletionMessage message = Message();
  message.cost.emplace();
  GenerateSummary summary;
  summary.timings = {1.0, 2.0, 1000.0, 10.0};
  summary.experts = {30, 10, 5.0, 4096, 40, 3, 4};
  message.cost->Add(summary);
  summary.timings.tokens_per_second = 20.0;
  message.cost->Add(summary);
  const json timings = json::parse(CompletionJson(message))["timings"];
  EXPECT_EQ(timings["queue_ms"], 2.0);
  EXPECT_EQ(timings["prefill_ms"], 4.0);
  EXPECT_EQ(timings["decode_ms"], 2000.0);
  EXPECT_EQ(timings["tokens_per_second"], 15.0);
  EXPECT_EQ(timings["experts"]["hits"], 60);
  EXPECT_EQ(timings["experts"]["misses"], 20);
  EXPECT_EQ(timings["experts"]["hit_rate"], 0.75);
  EXPECT_EQ(timings["experts"]["stall_ms"], 10.0);
  EXPECT_EQ(timings["experts"]["bytes_read"], 8192);
  EXPECT_EQ(timings["experts"]["recall"], 0.75);
}

TEST(CompletionResponseTest, WritesLogprobs) {
  CompletionMessage message = Message();
  ChoiceLogprobs logprobs;
  logprobs.tokens = {"a", "b"};
  logprobs.token_logprobs = {-1.0, -2.0};
  logprobs.top_logprobs.resize(2);
  logprobs.top_logprobs[0].emplace_back("a", -1.0);
  logprobs.top_logprobs[0].emplace_back("c", -3.0);
  logprobs.text_offsets = {0, 1};
  message.choices[0].logprobs = logprobs;
  EXPECT_EQ(json::parse(CompletionJson(message))["choices"][0]["logprobs"],
            json::parse(R"({"tokens":["a","b"],"token_logprobs":[-1.0,-2.0],)"
                        R"("top_logprobs":[{"a":-1.0,"c":-3.0},{}],"text_offset":[0,1]})"));
}

TEST(CompletionResponseTest, SurvivesTextThatIsNotUtf8AndNumbersThatAreNone) {
  CompletionMessage message = Message();
  message.choices[0].text = "a\xff" "b\n\"";
  message.cost.emplace();
  message.cost->timings.tokens_per_second = std::numeric_limits<double>::quiet_NaN();
  const json parsed = json::parse(CompletionJson(message));
  EXPECT_EQ(parsed["choices"][0]["text"], "a\xEF\xBF\xBD" "b\n\"");
  EXPECT_TRUE(parsed["timings"]["tokens_per_second"].is_null());
}

TEST(CompletionResponseTest, AnEventIsOneLine) {
  CompletionMessage message = Message();
  message.choices[0].text = "two\nlines\r\n";
  const std::string event = ServerSentEvent(CompletionJson(message));
  EXPECT_EQ(event.substr(0, 7), "data: {");
  EXPECT_EQ(event.find('\n'), event.size() - 2);
}

TEST(CompletionResponseTest, APartOfACharacterIsShownAsBytes) {
  EXPECT_EQ(TokenText("é"), "é");
  EXPECT_EQ(TokenText("\xe2\x80"), "bytes:\\xe2\\x80");
}

TEST(ApiErrorTest, EveryCodeHasItsStatus) {
  const struct {
    absl::Status status;
    int http;
    std::string type;
  } cases[] = {
      {absl::InvalidArgumentError("m"), 400, "invalid_request_error"},
      {absl::OutOfRangeError("m"), 400, "invalid_request_error"},
      {absl::UnauthenticatedError("m"), 401, "authentication_error"},
      {absl::PermissionDeniedError("m"), 403, "permission_error"},
      {absl::NotFoundError("m"), 404, "not_found_error"},
      {absl::ResourceExhaustedError("m"), 429, "rate_limit_error"},
      {absl::CancelledError("m"), 499, "invalid_request_error"},
      {absl::InternalError("m"), 500, "server_error"},
      {absl::DataLossError("m"), 500, "server_error"},
      {absl::UnknownError("m"), 500, "server_error"},
      {absl::UnimplementedError("m"), 501, "server_error"},
      {absl::UnavailableError("m"), 503, "service_unavailable_error"},
      {absl::FailedPreconditionError("m"), 503, "service_unavailable_error"},
      {absl::DeadlineExceededError("m"), 504, "server_error"},
  };
  for (const auto& [status, http, type] : cases) {
    const HttpResponse response = ErrorResponse(status);
    EXPECT_EQ(response.status, http) << status;
    const json error = json::parse(response.body)["error"];
    EXPECT_EQ(error["message"], "m");
    EXPECT_EQ(error["type"], type);
    EXPECT_TRUE(error["param"].is_null());
    EXPECT_TRUE(error["code"].is_null());
    const bool retry = http == 429 || http == 503;
    EXPECT_EQ(!response.headers.empty() && response.headers[0].first == "Retry-After", retry);
  }
}

TEST(ApiErrorTest, AMissingModelHasItsCode) {
  const json error = json::parse(ErrorJson(ModelNotFound("gpt")))["error"];
  EXPECT_EQ(error["code"], "model_not_found");
  EXPECT_EQ(error["param"], "model");
}

}  // namespace
}  // namespace odmoe
