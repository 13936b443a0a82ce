// Every bound of every RPC, broken one at a time: INVALID_ARGUMENT that names the field.
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "odmoe/inference/v1/inference_service.grpc.pb.h"
#include "services/core/rpc/channel.h"
#include "tests/inference/fake/inference_server.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::inference::v1;

// The field a status blames; "" where it blames none.
std::string BlamedField(const grpc::Status& status) {
  google::rpc::Status rich;
  if (!rich.ParseFromString(status.error_details())) return "";
  for (const google::protobuf::Any& detail : rich.details()) {
    google::rpc::BadRequest bad;
    if (detail.UnpackTo(&bad) && bad.field_violations_size() == 1) {
      return bad.field_violations(0).field();
    }
  }
  return "";
}

class BadRequestTest : public testing::Test {
 protected:
  // One server for all: a bad request must leave nothing behind.
  static void SetUpTestSuite() {
    server_ = new InferenceServer;
    ASSERT_TRUE(server_->service().LoadModel(server_->PathOf("alphabet"), 0).ok());
    stub_ = v1::InferenceService::NewStub(*MakeChannel(server_->endpoint())).release();
  }
  static void TearDownTestSuite() {
    delete stub_;
    delete server_;
  }

  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::InferenceService::Stub::*method)(grpc::ClientContext*,
                                                                       const Request&, Response*),
                    const Request& request) {
    grpc::ClientContext context;
    Response response;
    return (stub_->*method)(&context, request, &response);
  }

  grpc::Status CallGenerate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto stream = stub_->Generate(&context, request);
    v1::GenerateResponse response;
    while (stream->Read(&response)) {
    }
    return stream->Finish();
  }

  static void ExpectBlamed(const grpc::Status& status, const std::string& field) {
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT) << field;
    EXPECT_EQ(BlamedField(status), field) << status.error_message();
  }

  static InferenceServer* server_;
  static v1::InferenceService::Stub* stub_;
};

InferenceServer* BadRequestTest::server_ = nullptr;
v1::InferenceService::Stub* BadRequestTest::stub_ = nullptr;

template <typename Request>
struct Broken {
  std::string field;
  std::function<void(Request&)> break_it;
};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST_F(BadRequestTest, LoadModel) {
  using R = v1::LoadModelRequest;
  const std::vector<Broken<R>> table = {
      {"path", [](R& r) { r.set_path(""); }},
      {"path", [](R& r) { r.set_path("models/alphabet"); }},
      {"path", [](R& r) { r.set_path("/" + std::string(4096, 'x')); }},
      {"path", [](R& r) { r.set_path(std::string("/a\0b", 4)); }},
      {"context_length", [](R& r) { r.set_context_length(-1); }},
  };
  for (const auto& [field, break_it] : table) {
    R request;
    request.set_path(server_->PathOf("alphabet"));
    ASSERT_TRUE(Call(&v1::InferenceService::Stub::LoadModel, request).ok());
    break_it(request);
    ExpectBlamed(Call(&v1::InferenceService::Stub::LoadModel, request), field);
  }
}

TEST_F(BadRequestTest, Tokenize) {
  v1::TokenizeRequest request;
  request.set_text(std::string((16 << 20) + 1, 'x'));
  ExpectBlamed(Call(&v1::InferenceService::Stub::Tokenize, request), "text");
}

TEST_F(BadRequestTest, Detokenize) {
  using R = v1::DetokenizeRequest;
  const std::vector<Broken<R>> table = {
      {"tokens[1]", [](R& r) { r.add_tokens(257); }},
      {"tokens[1]", [](R& r) { r.add_tokens(-1); }},
      {"tokens", [](R& r) { r.mutable_tokens()->Resize((1 << 20) + 1, 0); }},
  };
  for (const auto& [field, break_it] : table) {
    R request;
    request.add_tokens('a');
    ASSERT_TRUE(Call(&v1::InferenceService::Stub::Detokenize, request).ok());
    break_it(request);
    ExpectBlamed(Call(&v1::InferenceService::Stub::Detokenize, request), field);
  }
}

TEST_F(BadRequestTest, Generate) {
  using R = v1::GenerateRequest;
  const std::vector<Broken<R>> table = {
      {"prompt", [](R& r) { r.clear_prompt(); }},
      {"prompt", [](R& r) { r.mutable_prompt()->clear_text(); }},
      {"prompt.text", [](R& r) { r.mutable_prompt()->set_text(""); }},
      {"prompt.text",
       [](R& r) { r.mutable_prompt()->set_text(std::string((16 << 20) + 1, 'x')); }},
      {"prompt.tokens.ids", [](R& r) { r.mutable_prompt()->mutable_tokens(); }},
      {"prompt.tokens.ids",
       [](R& r) { r.mutable_prompt()->mutable_tokens()->mutable_ids()->Resize(65, 'a'); }},
      {"prompt.tokens.ids[0]", [](R& r) { r.mutable_prompt()->mutable_tokens()->add_ids(257); }},
      {"prompt.tokens.ids[0]", [](R& r) { r.mutable_prompt()->mutable_tokens()->add_ids(-1); }},
      {"max_tokens", [](R& r) { r.set_max_tokens(0); }},
      {"max_tokens", [](R& r) { r.set_max_tokens(-5); }},
      {"max_tokens", [](R& r) { r.set_max_tokens(65); }},
      {"sampling.temperature", [](R& r) { r.mutable_sampling()->set_temperature(-1.0f); }},
      {"sampling.temperature", [](R& r) { r.mutable_sampling()->set_temperature(101.0f); }},
      {"sampling.temperature", [](R& r) { r.mutable_sampling()->set_temperature(kNan); }},
      {"sampling.top_k", [](R& r) { r.mutable_sampling()->set_top_k(-1); }},
      {"sampling.top_p", [](R& r) { r.mutable_sampling()->set_top_p(0.0f); }},
      {"sampling.top_p", [](R& r) { r.mutable_sampling()->set_top_p(1.01f); }},
      {"sampling.top_p", [](R& r) { r.mutable_sampling()->set_top_p(kNan); }},
      {"sampling.min_p", [](R& r) { r.mutable_sampling()->set_min_p(1.0f); }},
      {"sampling.min_p", [](R& r) { r.mutable_sampling()->set_min_p(-0.1f); }},
      {"stop[0]", [](R& r) { r.add_stop(""); }},
      {"stop[1]", [](R& r) { r.add_stop("x"), r.add_stop(std::string(257, 'x')); }},
      {"stop",
       [](R& r) {
         for (int i = 0; i < 17; ++i) r.add_stop("x");
       }},
      {"top_logprobs", [](R& r) { r.set_logprobs(true), r.set_top_logprobs(21); }},
      {"top_logprobs", [](R& r) { r.set_logprobs(true), r.set_top_logprobs(-1); }},
      {"top_logprobs", [](R& r) { r.set_top_logprobs(1); }},
  };
  for (const auto& [field, break_it] : table) {
    R request;
    request.mutable_prompt()->set_text("abc");
    request.set_max_tokens(2);
    ASSERT_TRUE(CallGenerate(request).ok());
    break_it(request);
    ExpectBlamed(CallGenerate(request), field);
  }
}

TEST_F(BadRequestTest, Score) {
  using R = v1::ScoreRequest;
  const std::vector<Broken<R>> table = {
      {"prompt", [](R& r) { r.clear_prompt(); }},
      {"prompt.text", [](R& r) { r.mutable_prompt()->set_text(""); }},
      {"prompt.tokens.ids[2]",
       [](R& r) {
         for (int32_t id : {1, 2, 300}) r.mutable_prompt()->mutable_tokens()->add_ids(id);
       }},
      {"prompt.tokens.ids",
       [](R& r) { r.mutable_prompt()->mutable_tokens()->mutable_ids()->Resize(65, 'a'); }},
  };
  for (const auto& [field, break_it] : table) {
    R request;
    request.mutable_prompt()->set_text("abc");
    ASSERT_TRUE(Call(&v1::InferenceService::Stub::Score, request).ok());
    break_it(request);
    ExpectBlamed(Call(&v1::InferenceService::Stub::Score, request), field);
  }
}

TEST_F(BadRequestTest, UnknownModelsAreNotFoundByEveryRpc) {
  const auto named = [](auto request) {
    request.set_model("other");
    return request;
  };
  v1::GenerateRequest generate;
  generate.mutable_prompt()->set_text("abc");
  generate.set_max_tokens(1);
  v1::ScoreRequest score;
  score.mutable_prompt()->set_text("abc");
  using Stub = v1::InferenceService::Stub;
  EXPECT_EQ(Call(&Stub::ModelInfo, named(v1::ModelInfoRequest())).error_code(), grpc::NOT_FOUND);
  EXPECT_EQ(Call(&Stub::UnloadModel, named(v1::UnloadModelRequest())).error_code(),
            grpc::NOT_FOUND);
  EXPECT_EQ(Call(&Stub::Tokenize, named(v1::TokenizeRequest())).error_code(), grpc::NOT_FOUND);
  EXPECT_EQ(Call(&Stub::Detokenize, named(v1::DetokenizeRequest())).error_code(), grpc::NOT_FOUND);
  EXPECT_EQ(Call(&Stub::Score, named(score)).error_code(), grpc::NOT_FOUND);
  EXPECT_EQ(CallGenerate(named(generate)).error_code(), grpc::NOT_FOUND);
}

TEST_F(BadRequestTest, StatsTakesAnything) {
  EXPECT_TRUE(Call(&v1::InferenceService::Stub::Stats, v1::StatsRequest()).ok());
}

}  // namespace
}  // namespace odmoe
