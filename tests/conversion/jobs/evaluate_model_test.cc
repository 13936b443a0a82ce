#include "services/conversion/jobs/evaluate_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

// A token a byte, each of log-probability -1.
class FakeModel : public LanguageModel {
 public:
  explicit FakeModel(int32_t context) : context_(context) {}
  absl::StatusOr<ModelInfo> Info() override {
    ModelInfo info;
    info.context_length = context_;
    return info;
  }
  absl::StatusOr<std::vector<TokenId>> Tokenize(absl::string_view text,
                                                const TokenizeOptions& options) override {
    EXPECT_FALSE(options.add_special || options.parse_special);
    return std::vector<TokenId>(text.begin(), text.end());
  }
  absl::StatusOr<std::string> Detokenize(const std::vector<TokenId>&) override { return ""; }
  absl::StatusOr<GenerateSummary> Generate(const GenerateRequest&, const CallOptions&,
                                           const OnToken&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<ScoreResult> Score(const ScoreRequest& request, const CallOptions&) override {
    EXPECT_LE(request.prompt.tokens.size(), size_t(context_));
    windows.push_back(request.prompt.tokens.size());
    ScoreResult result;
    result.tokens = request.prompt.tokens;
    result.logprobs.assign(request.prompt.tokens.size(), -1.0);
    result.logprobs[0] = std::numeric_limits<double>::quiet_NaN();
    return result;
  }

  std::vector<size_t> windows;

 private:
  const int32_t context_;
};

class EvaluateModelTest : public ::testing::Test {
 protected:
  absl::StatusOr<StepResult> Evaluate(const std::string& text) {
    WriteFileOrDie(folder_ / "text", text);
    return EvaluateModel(
        [this](const std::string&) -> absl::StatusOr<std::shared_ptr<LanguageModel>> {
          return model_;
        },
        PosixFileSystem(), {"model", folder_ / "text"}, cancellation_,
        [this](const JobProgress& progress) { progress_.push_back(progress); });
  }

  TemporaryDirectory folder_;
  std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>(10);
  Cancellation cancellation_;
  std::vector<JobProgress> progress_;
};

TEST_F(EvaluateModelTest, ScoresInWindowsOfTheContext) {
  const auto result = Evaluate(std::string(25, 'x'));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(model_->windows, ::testing::ElementsAre(10, 10, 5));
  EXPECT_EQ(result->metrics.at("tokens"), 9 + 9 + 4);
  EXPECT_NEAR(result->metrics.at("perplexity"), std::exp(1.0), 1e-12);
  EXPECT_EQ(progress_.back().done_bytes, 25u);
  EXPECT_EQ(progress_.back().total_bytes, 25u);
}

TEST_F(EvaluateModelTest, ATokenAloneAtTheEndIsLeftOut) {
  EXPECT_EQ(Evaluate(std::string(11, 'x'))->metrics.at("tokens"), 9);
}

TEST_F(EvaluateModelTest, RefusesTooLittleTextAndHeedsACancellation) {
  EXPECT_EQ(Evaluate("x").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Evaluate("").status().code(), absl::StatusCode::kInvalidArgument);
  cancellation_.Cancel();
  EXPECT_EQ(Evaluate("some text").status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace odmoe
