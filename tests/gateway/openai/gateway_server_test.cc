// The whole gateway over real sockets, in front of a model that says what it is told.
#include "services/gateway/openai/gateway_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "tests/gateway/fake_language_model.h"
#include "tests/support/http_client.h"

namespace odmoe {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

class GatewayServerTest : public ::testing::Test {
 protected:
  void Start(GatewayOptions options = {}) {
    if (options.model == nullptr) options.model = &model_;
    auto server = GatewayServer::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  HttpReply Fetch(absl::string_view method, absl::string_view target, absl::string_view body = "",
                  absl::string_view headers = "") {
    const auto reply = HttpFetch(server_->port(), method, target, body, headers);
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.value_or(HttpReply());
  }

  HttpReply Complete(const json& request) {
    return Fetch("POST", "/v1/completions", request.dump());
  }

  std::unique_ptr<HttpClient> BeginCompletion(const json& request) {
    auto client = HttpClient::Connect(server_->port());
    EXPECT_TRUE(client->Request("POST", "/v1/completions", request.dump()));
    return client;
  }

  // The data of a stream's events, "[DONE]" last.
  static std::vector<std::string> Events(const std::string& body) {
    std::vector<std::string> events;
    for (absl::string_view event : absl::StrSplit(body, "\n\n", absl::SkipEmpty())) {
      if (absl::StartsWith(event, ":")) continue;  // a heartbeat
      EXPECT_TRUE(absl::ConsumePrefix(&event, "data: ")) << event;
      events.emplace_back(event);
    }
    return events;
  }

  FakeLanguageModel model_;
  std::unique_ptr<GatewayServer> server_;
};

TEST_F(GatewayServerTest, AnswersACompletion) {
  Start();
  const HttpReply reply = Complete({{"model", "fake"}, {"prompt", "Say:"}, {"max_tokens", 3}});
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.headers.at("content-type"), "application/json");
  const json answer = json::parse(reply.body);
  EXPECT_THAT(answer["id"].get<std::string>(), HasSubstr("cmpl-"));
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["model"], "fake");
  EXPECT_EQ(answer["choices"], json::parse(R"([{"index":0,"text":"Hello world","logprobs":null,)"
                                           R"("finish_reason":"length"}])"));
  EXPECT_EQ(answer["usage"],
            json::parse(R"({"prompt_tokens":4,"completion_tokens":3,"total_tokens":7})"));
  EXPECT_EQ(answer["timings"]["prefill_ms"], 2.0);
  EXPECT_EQ(answer["timings"]["experts"]["hit_rate"], 0.75);
}

TEST_F(GatewayServerTest, TellsWhyItStopped) {
  model_.set_stops(true);
  Start();
  const json answer = json::parse(Complete({{"prompt", "a"}}).body);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
}

TEST_F(GatewayServerTest, PassesTheRequestOn) {
  Start();
  Complete({{"prompt", {7, 8}}, {"max_tokens", 1}, {"temperature", 0.25}, {"top_p", 0.5},
            {"top_k", 3}, {"min_p", 0.125}, {"seed", 9}, {"stop", {"x"}}});
  const GenerateRequest request = model_.last_request();
  EXPECT_EQ(request.prompt.tokens, (std::vector<TokenId>{7, 8}));
  EXPECT_EQ(request.sampling.temperature, 0.25f);
  EXPECT_EQ(request.sampling.top_p, 0.5f);
  EXPECT_EQ(request.sampling.top_k, 3);
  EXPECT_EQ(request.sampling.min_p, 0.125f);
  EXPECT_EQ(request.sampling.seed, 9u);
  EXPECT_EQ(request.stop, std::vector<std::string>{"x"});
}

TEST_F(GatewayServerTest, AnswersEveryPromptNTimes) {
  Start();
  const json answer = json::parse(
      Complete({{"prompt", {"ab", "cde"}}, {"n", 2}, {"max_tokens", 1}, {"seed", 5}}).body);
  ASSERT_EQ(answer["choices"].size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(answer["choices"][i]["index"], i);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 5);  // each prompt once
  EXPECT_EQ(answer["usage"]["completion_tokens"], 4);
  EXPECT_EQ(model_.generations(), 4);
  EXPECT_EQ(model_.last_request().sampling.seed, 8u);  // or the choices would be the same
}

TEST_F(GatewayServerTest, EchoesThePrompt) {
  Start();
  EXPECT_EQ(json::parse(Complete({{"prompt", "Well: "}, {"echo", true}, {"max_tokens", 1}}).body)
                ["choices"][0]["text"],
            "Well: Hello");
  EXPECT_EQ(json::parse(Complete({{"prompt", {2}}, {"echo", true}, {"max_tokens", 1}}).body)
                ["choices"][0]["text"],
            "worldHello");
  const HttpReply streamed =
      Complete({{"prompt", "P"}, {"echo", true}, {"max_tokens", 1}, {"stream", true}});
  EXPECT_EQ(json::parse(Events(streamed.body)[0])["choices"][0]["text"], "PHello");
}

TEST_F(GatewayServerTest, GivesLogprobs) {
  Start();
  const json answer =
      json::parse(Complete({{"prompt", "a"}, {"logprobs", 2}, {"max_tokens", 2}}).body);
  EXPECT_EQ(answer["choices"][0]["logprobs"],
            json::parse(R"({"tokens":["Hello"," "],"token_logprobs":[-0.5,-1.0],)"
                        R"("top_logprobs":[{"Hello":-0.25," ":-0.5},{"Hello":-0.25," ":-0.5}],)"
                        R"("text_offset":[0,5]})"));
}

TEST_F(GatewayServerTest, Streams) {
  Start();
  const HttpReply reply = Complete({{"prompt", "a"}, {"max_tokens", 3}, {"stream", true}});
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.headers.at("content-type"), "text/event-stream");
  const std::vector<std::string> events = Events(reply.body);
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events.back(), "[DONE]");
  std::string text;
  std::string id;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const json chunk = json::parse(events[i]);
    EXPECT_FALSE(chunk.contains("usage"));
    EXPECT_EQ(chunk.contains("timings"), i == 3);
    if (id.empty()) id = chunk["id"].get<std::string>();
    EXPECT_EQ(chunk["id"], id);
    text += chunk["choices"][0]["text"].get<std::string>();
    EXPECT_EQ(chunk["choices"][0]["finish_reason"].is_null(), i != 3);
  }
  EXPECT_EQ(text, "Hello world");
}

TEST_F(GatewayServerTest, StreamsTheUsageWhereAsked) {
  Start();
  const HttpReply reply = Complete({{"prompt", "a"}, {"max_tokens", 2}, {"stream", true},
                                    {"stream_options", {{"include_usage", true}}}});
  const std::vector<std::string> events = Events(reply.body);
  ASSERT_GE(events.size(), 3u);
  EXPECT_TRUE(json::parse(events[0])["usage"].is_null());
  const json last = json::parse(events[events.size() - 2]);
  EXPECT_EQ(last["choices"], json::array());
  EXPECT_EQ(last["usage"]["total_tokens"], 3);
  EXPECT_EQ(last["timings"]["experts"]["misses"], 10);
}

TEST_F(GatewayServerTest, StreamsLogprobsAndChoices) {
  Start();
  const HttpReply reply = Complete(
      {{"prompt", "a"}, {"max_tokens", 2}, {"stream", true}, {"n", 2}, {"logprobs", 0}});
  std::map<int, std::vector<std::string>> tokens;
  for (const std::string& event : Events(reply.body)) {
    if (event == "[DONE]") continue;
    const json choice = json::parse(event)["choices"][0];
    for (const auto& token : choice["logprobs"]["tokens"]) {
      tokens[choice["index"].get<int>()].push_back(token.get<std::string>());
    }
  }
  EXPECT_EQ(tokens[0], (std::vector<std::string>{"Hello", " "}));
  EXPECT_EQ(tokens[1], tokens[0]);
}

TEST_F(GatewayServerTest, ATokenIsSentWhenItIsThere) {
  model_.HoldAfter(1);
  Start();
  const auto client = BeginCompletion({{"prompt", "a"}, {"max_tokens", 3}, {"stream", true}});
  EXPECT_TRUE(client->ReadUntil("\"Hello\"").ok());  // while the model waits before the second
  model_.Release();
  EXPECT_TRUE(client->ReadUntil("[DONE]").ok());
}

TEST_F(GatewayServerTest, AStreamHasHeartbeatsWhileThePromptIsRead) {
  GatewayOptions options;
  options.http.heartbeat_interval = absl::Milliseconds(20);
  model_.HoldAfter(0);
  Start(options);
  const auto client = BeginCompletion({{"prompt", "a"}, {"max_tokens", 1}, {"stream", true}});
  EXPECT_TRUE(client->ReadUntil(": still working\n\n").ok());
  model_.Release();
  EXPECT_TRUE(client->ReadUntil("[DONE]").ok());
}

TEST_F(GatewayServerTest, ANewStreamsErrorIsAnAnswer) {
  model_.set_generate_error(absl::InvalidArgumentError("prompt: longer than the context"));
  Start();
  const HttpReply reply = Complete({{"prompt", "a"}, {"stream", true}});
  EXPECT_EQ(reply.status, 400);
  EXPECT_THAT(json::parse(reply.body)["error"]["message"].get<std::string>(),
              HasSubstr("longer than the context"));
}

TEST_F(GatewayServerTest, ABegunStreamsErrorIsAnEvent) {
  model_.set_generate_error(absl::UnavailableError("the expert store went away"), 2);
  Start();
  const std::vector<std::string> events =
      Events(Complete({{"prompt", "a"}, {"stream", true}}).body);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(json::parse(events[2])["error"]["message"], "the expert store went away");
  EXPECT_EQ(events[3], "[DONE]");
}

TEST_F(GatewayServerTest, AClientThatLeavesEndsItsGeneration) {
  model_.HoldAfter(1);
  Start();
  for (const bool stream : {true, false}) {
    auto client = BeginCompletion({{"prompt", "a"}, {"max_tokens", 1000}, {"stream", stream}});
    ASSERT_TRUE(model_.WaitUntilHeld(stream ? 1 : 2));
    client->Close();
    EXPECT_TRUE(model_.WaitUntilCancelled(stream ? 1 : 2));
  }
  EXPECT_EQ(model_.tokens(), 2);  // one each, and none after
}

TEST_F(GatewayServerTest, ErrorsHaveTheirStatus) {
  Start();
  const struct {
    absl::Status status;
    int http;
  } cases[] = {{absl::InvalidArgumentError("m"), 400},  {absl::ResourceExhaustedError("m"), 429},
               {absl::FailedPreconditionError("m"), 503}, {absl::UnavailableError("m"), 503},
               {absl::DataLossError("m"), 500},         {absl::DeadlineExceededError("m"), 504}};
  for (const auto& [status, http] : cases) {
    model_.set_generate_error(status);
    const HttpReply reply = Complete({{"prompt", "a"}});
    EXPECT_EQ(reply.status, http);
    EXPECT_EQ(json::parse(reply.body)["error"]["message"], "m");
    EXPECT_EQ(reply.headers.count("retry-after") > 0, http == 429 || http == 503);
  }
}

TEST_F(GatewayServerTest, RefusesAnotherModel) {
  Start();
  const HttpReply reply = Complete({{"model", "gpt"}, {"prompt", "a"}});
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(json::parse(reply.body)["error"]["code"], "model_not_found");
  EXPECT_EQ(model_.generations(), 0);
}

TEST_F(GatewayServerTest, RefusesBadRequestsAndGoesOn) {
  GatewayOptions options;
  options.http.max_body_bytes = 100'000;
  Start(options);
  EXPECT_EQ(Fetch("POST", "/v1/completions", "{").status, 400);
  EXPECT_EQ(Fetch("POST", "/v1/completions", "").status, 400);
  EXPECT_EQ(Fetch("POST", "/v1/completions", std::string(50'000, '[')).status, 400);
  const HttpReply large = Fetch("POST", "/v1/completions", std::string(100'001, 'x'));
  EXPECT_EQ(large.status, 413);
  EXPECT_EQ(json::parse(large.body)["error"]["type"], "invalid_request_error");
  const HttpReply temperature = Complete({{"prompt", "a"}, {"temperature", 9}});
  EXPECT_EQ(temperature.status, 400);
  EXPECT_EQ(json::parse(temperature.body)["error"]["param"], "temperature");
  EXPECT_EQ(Complete({{"prompt", "a"}}).status, 200);
}

TEST_F(GatewayServerTest, UnknownPathsAndMethodsAreRefused) {
  Start();
  EXPECT_EQ(Fetch("GET", "/").status, 404);
  EXPECT_EQ(Fetch("GET", "/v1/chat").status, 404);
  EXPECT_EQ(Fetch("GET", "/v1/modelsx").status, 404);
  EXPECT_EQ(Fetch("GET", "/../../etc/passwd").status, 404);
  const HttpReply wrong = Fetch("GET", "/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST");
  EXPECT_EQ(json::parse(wrong.body)["error"]["type"], "invalid_request_error");
  EXPECT_EQ(Fetch("DELETE", "/health").status, 405);
  EXPECT_EQ(Fetch("BREW", "/health").status, 405);
  EXPECT_EQ(Fetch("HEAD", "/health").status, 200);
}

TEST_F(GatewayServerTest, ListsTheModel) {
  Start();
  const json list = json::parse(Fetch("GET", "/v1/models").body);
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 1u);
  EXPECT_EQ(list["data"][0]["id"], "fake");
  EXPECT_EQ(list["data"][0]["object"], "model");
  EXPECT_EQ(json::parse(Fetch("GET", "/v1/models/fake").body)["context_length"], 128);
  EXPECT_EQ(Fetch("GET", "/v1/models/other").status, 404);
}

TEST_F(GatewayServerTest, HealthFollowsTheModel) {
  Start();
  EXPECT_EQ(Fetch("GET", "/health").status, 200);
  for (const absl::Status& status :
       {absl::FailedPreconditionError("no model is loaded"), absl::UnavailableError("unreachable"),
        absl::InternalError("broken")}) {
    model_.set_info_error(status);
    const HttpReply reply = Fetch("GET", "/health");
    EXPECT_EQ(reply.status, 503);
    EXPECT_EQ(json::parse(reply.body)["error"]["message"], std::string(status.message()));
  }
  EXPECT_EQ(Fetch("GET", "/v1/models").status, 500);
  model_.set_info_error(absl::OkStatus());
  EXPECT_EQ(Fetch("GET", "/health").status, 200);
}

TEST_F(GatewayServerTest, CountsWhatItDoes) {
  Start();
  Complete({{"prompt", "ab"}, {"max_tokens", 3}});
  model_.set_stops(true);
  Complete({{"prompt", "ab"}, {"stream", true}});
  model_.set_generate_error(absl::InternalError("m"));
  Complete({{"prompt", "ab"}});
  // A completion's thread is free a little after its answer has left.
  HttpReply reply = Fetch("GET", "/metrics");
  while (!absl::StrContains(reply.body, "odmoe_num_requests_running 0\n")) {
    reply = Fetch("GET", "/metrics");
    ASSERT_EQ(reply.status, 200);
  }
  EXPECT_THAT(reply.headers.at("content-type"), HasSubstr("text/plain; version=0.0.4"));
  for (const char* line : {"odmoe_requests_total{finished_reason=\"length\"} 1",
                           "odmoe_requests_total{finished_reason=\"stop\"} 1",
                           "odmoe_requests_total{finished_reason=\"error\"} 1",
                           "odmoe_prompt_tokens_total 4",
                           "odmoe_generation_tokens_total 6",
                           "odmoe_expert_hits_total 60",
                           "odmoe_expert_misses_total 20",
                           "odmoe_expert_stall_seconds_total 0.01",
                           "odmoe_expert_read_bytes_total 8192",
                           "odmoe_time_to_first_token_seconds_count 2",
                           "odmoe_inter_token_latency_seconds_count 4",
                           "odmoe_e2e_request_latency_seconds_count 3",
                           "odmoe_request_prefill_time_seconds_sum 0.004",
                           "odmoe_num_requests_running 0",
                           "odmoe_num_requests_waiting 0",
                           "# TYPE odmoe_time_to_first_token_seconds histogram"}) {
    EXPECT_THAT(reply.body, HasSubstr(absl::StrCat(line, "\n")));
  }
  EXPECT_THAT(reply.body, HasSubstr("odmoe_http_requests_total{"));
}

TEST_F(GatewayServerTest, BoundsWhatRunsAndWaits) {
  GatewayOptions options;
  options.max_running = 2;
  options.max_waiting = 1;
  model_.HoldAfter(0);
  Start(options);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 2; ++i) {
    clients.push_back(BeginCompletion({{"prompt", "a"}, {"max_tokens", 1}}));
  }
  ASSERT_TRUE(model_.WaitUntilHeld(2));
  EXPECT_THAT(Fetch("GET", "/metrics").body, HasSubstr("odmoe_num_requests_running 2\n"));
  // Of two more one waits and the other is refused; which, the server decides.
  clients.push_back(BeginCompletion({{"prompt", "a"}, {"max_tokens", 1}}));
  clients.push_back(BeginCompletion({{"prompt", "a"}, {"max_tokens", 1}}));
  EXPECT_EQ(Fetch("GET", "/health").status, 200);  // others are served meanwhile
  model_.Release();
  std::map<int, int> statuses;
  for (const auto& client : clients) {
    const auto reply = client->ReadReply();
    ASSERT_TRUE(reply.ok()) << reply.status();
    ++statuses[reply->status];
  }
  EXPECT_EQ(statuses[200] + statuses[429], 4);
  EXPECT_GE(statuses[200], 3);
}

TEST_F(GatewayServerTest, OneTooManyIsToldToComeBack) {
  GatewayOptions options;
  options.max_running = 1;
  options.max_waiting = 0;
  model_.HoldAfter(0);
  Start(options);
  const auto running = BeginCompletion({{"prompt", "a"}, {"max_tokens", 1}});
  ASSERT_TRUE(model_.WaitUntilHeld(1));
  const HttpReply refused = Complete({{"prompt", "a"}});
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  model_.Release();
  EXPECT_EQ(running->ReadReply()->status, 200);
}

TEST_F(GatewayServerTest, ServesManyAtOnce) {
  Start();
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&, i] {
      for (int k = 0; k < 10; ++k) {
        const bool stream = (i + k) % 2 == 0;
        const auto reply = HttpFetch(
            server_->port(), "POST", "/v1/completions",
            json({{"prompt", "a"}, {"max_tokens", 3}, {"stream", stream}}).dump());
        if (reply.ok() && reply->status == 200 && absl::StrContains(reply->body, "world")) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 160);
}

TEST_F(GatewayServerTest, AsksForAKey) {
  GatewayOptions options;
  options.keys = ApiKeys({"secret"});
  Start(options);
  const std::string body = R"({"prompt":"a"})";
  const HttpReply refused = Fetch("POST", "/v1/completions", body);
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(json::parse(refused.body)["error"]["type"], "authentication_error");
  EXPECT_EQ(Fetch("GET", "/v1/models").status, 401);
  EXPECT_EQ(Fetch("POST", "/v1/completions", body, "Authorization: Bearer wrong\r\n").status, 401);
  EXPECT_EQ(Fetch("POST", "/v1/completions", body, "Authorization: Bearer secret\r\n").status, 200);
  EXPECT_EQ(Fetch("GET", "/health").status, 200);
  EXPECT_EQ(Fetch("GET", "/metrics").status, 200);
}

TEST_F(GatewayServerTest, DrainFinishesWhatRunsAndRefusesTheRest) {
  model_.HoldAfter(1);
  Start();
  const auto client = BeginCompletion({{"prompt", "a"}, {"max_tokens", 3}, {"stream", true}});
  ASSERT_TRUE(model_.WaitUntilHeld(1));
  std::thread drain([&] { server_->Drain(absl::Now() + HttpClient::kPatience); });
  int health = 200;
  while (health == 200) health = Fetch("GET", "/health").status;
  EXPECT_EQ(health, 503);
  EXPECT_EQ(Complete({{"prompt", "a"}}).status, 503);
  model_.Release();
  EXPECT_TRUE(client->ReadUntil("[DONE]").ok());
  drain.join();
  EXPECT_EQ(HttpClient::Connect(server_->port()), nullptr);
}

TEST_F(GatewayServerTest, ItsEndEndsWhatRuns) {
  model_.HoldAfter(1);
  Start();
  const auto client = BeginCompletion({{"prompt", "a"}, {"max_tokens", 1000}, {"stream", true}});
  ASSERT_TRUE(model_.WaitUntilHeld(1));
  server_ = nullptr;
  EXPECT_TRUE(model_.WaitUntilCancelled(1));
  EXPECT_TRUE(client->ReadToClose());
}

TEST_F(GatewayServerTest, RefusesBadOptions) {
  GatewayOptions options;
  EXPECT_EQ(GatewayServer::Start(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.model = &model_;
  options.max_running = 0;
  EXPECT_EQ(GatewayServer::Start(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.max_running = 1;
  options.http.listen = "nowhere";
  EXPECT_EQ(GatewayServer::Start(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(GatewayServerTest, ItsUrlCanBeFetched) {
  GatewayOptions options;
  options.http.listen = "localhost:0";
  Start(options);
  EXPECT_EQ(server_->url(), absl::StrCat("http://127.0.0.1:", server_->port()));
}

}  // namespace
}  // namespace odmoe
