#include "services/inference/sampling/request_check.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

const ModelInfo kModel = [] {
  ModelInfo model;
  model.vocabulary_size = 100;
  model.context_length = 32;
  return model;
}();

GenerateRequest ValidRequest() {
  GenerateRequest request;
  request.prompt.text = "It was";
  return request;
}

struct Case {
  std::string field;
  std::function<void(GenerateRequest&)> break_it;
};

class BrokenBoundTest : public testing::TestWithParam<Case> {};

TEST_P(BrokenBoundTest, IsReportedByField) {
  GenerateRequest request = ValidRequest();
  ASSERT_FALSE(CheckGenerate(request, kModel).has_value());
  GetParam().break_it(request);
  const auto violation = CheckGenerate(request, kModel);
  ASSERT_TRUE(violation.has_value());
  EXPECT_EQ(violation->field, GetParam().field) << violation->description;
  EXPECT_EQ(violation->ToStatus().code(), absl::StatusCode::kInvalidArgument);
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
using G = GenerateRequest;

INSTANTIATE_TEST_SUITE_P(
    Generate, BrokenBoundTest,
    testing::Values(
        Case{"prompt", [](G& r) { r.prompt.text = ""; }},
        Case{"prompt", [](G& r) { r.prompt.tokens = {1}; }},
        Case{"prompt.text", [](G& r) { r.prompt.text = "bad \xFF"; }},
        Case{"prompt.text", [](G& r) { r.prompt.text = std::string(kMaxPromptBytes + 1, 'x'); }},
        Case{"prompt.tokens.ids[1]", [](G& r) { r.prompt.text = "", r.prompt.tokens = {5, 100}; }},
        Case{"prompt.tokens.ids[0]", [](G& r) { r.prompt.text = "", r.prompt.tokens = {-1}; }},
        Case{"prompt.tokens.ids",
             [](G& r) { r.prompt.text = "", r.prompt.tokens.assign(33, 1); }},
        Case{"max_tokens", [](G& r) { r.max_tokens = 0; }},
        Case{"max_tokens", [](G& r) { r.max_tokens = 33; }},
        Case{"sampling.temperature", [](G& r) { r.sampling.temperature = -0.1f; }},
        Case{"sampling.temperature", [](G& r) { r.sampling.temperature = 100.5f; }},
        Case{"sampling.temperature", [](G& r) { r.sampling.temperature = kNan; }},
        Case{"sampling.top_k", [](G& r) { r.sampling.top_k = -1; }},
        Case{"sampling.top_p", [](G& r) { r.sampling.top_p = 0.0f; }},
        Case{"sampling.top_p", [](G& r) { r.sampling.top_p = 1.5f; }},
        Case{"sampling.top_p", [](G& r) { r.sampling.top_p = kNan; }},
        Case{"sampling.min_p", [](G& r) { r.sampling.min_p = 1.0f; }},
        Case{"sampling.min_p", [](G& r) { r.sampling.min_p = -kInfinity; }},
        Case{"stop", [](G& r) { r.stop.assign(17, "x"); }},
        Case{"stop[1]", [](G& r) { r.stop = {"x", ""}; }},
        Case{"stop[0]", [](G& r) { r.stop = {std::string(257, 'x')}; }},
        Case{"stop[0]", [](G& r) { r.stop = {"\xC3"}; }},
        Case{"top_logprobs", [](G& r) { r.logprobs = true, r.top_logprobs = 21; }},
        Case{"top_logprobs", [](G& r) { r.logprobs = true, r.top_logprobs = -1; }},
        Case{"top_logprobs", [](G& r) { r.top_logprobs = 1; }}));

TEST(RequestCheckTest, BoundsThemselvesAreAllowed) {
  GenerateRequest request = ValidRequest();
  request.prompt.text = "";
  request.prompt.tokens.assign(32, 99);
  request.max_tokens = 32;
  request.sampling = {.temperature = 100.0f, .top_k = 1 << 30, .top_p = 1.0f, .min_p = 0.999f};
  request.stop.assign(16, std::string(256, 's'));
  request.logprobs = true;
  request.top_logprobs = 20;
  const auto violation = CheckGenerate(request, kModel);
  EXPECT_FALSE(violation.has_value()) << violation->field;
}

TEST(RequestCheckTest, StatusNamesTheField) {
  EXPECT_EQ(CheckSampling({.top_k = -3})->ToStatus().message(),
            "sampling.top_k: 0 or more, got -3");
}

}  // namespace
}  // namespace odmoe
