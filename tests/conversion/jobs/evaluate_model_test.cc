#include "services/conversion/jobs/evaluate_model.h"

#include <cmath>
#include <memory>
#include <vector>

#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

// A token a byte; each as likely as the others, but for byte 0, which a text does not have.
class FakeModel : public LanguageModel {
 public:
  explicit FakeModel(float likes_zero) : likes_zero_(likes_zero) {}
  absl::StatusOr<ModelInfo> Info() override {
    ModelInfo info;
    info.context_length = 16;
    info.vocabulary_size = 256;
    return info;
  }
  absl::StatusOr<std::vector<TokenId>> Tokenize(absl::string_view text,
                                                const TokenizeOptions&) override {
    return std::vector<TokenId>(text.begin(), text.end());
  }
  absl::StatusOr<std::string> Detokenize(const std::vector<TokenId>&) override { return ""; }
  absl::StatusOr<GenerateSummary> Generate(const GenerateRequest&, const CallOptions&,
                                           const OnToken&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<ScoreResult> Score(const ScoreRequest&, const CallOptions&) override {
    return absl::UnimplementedError("");
  }
  absl::Status Logits(const std::vector<TokenId>& tokens, int64_t first, const CallOptions&,
                      const OnLogits& on_logits) override {
    std::vector<float> logits(256, 0.0f);
    logits[0] = likes_zero_;
    for (int64_t i = first; i < static_cast<int64_t>(tokens.size()); ++i) {
      if (absl::Status status = on_logits(i, logits); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  const float likes_zero_;
};

class EvaluateModelTest : public ::testing::Test {
 protected:
  absl::StatusOr<StepResult> Evaluate(const std::string& text, const std::string& base = "") {
    WriteFileOrDie(folder_ / "text", text);
    return EvaluateModel(
        [this](const std::string& name) -> absl::StatusOr<std::shared_ptr<LanguageModel>> {
          opened_.push_back(name);
          if (name == "missing") return absl::NotFoundError("no such model");
          return std::make_shared<FakeModel>(name == "model" ? 0.0f : 1.0f);
        },
        PosixFileSystem(), {"model", folder_ / "text", base, 10, 0}, cancellation_,
        [this](const JobProgress& progress) { progress_.push_back(progress); });
  }

  TemporaryDirectory folder_;
  Cancellation cancellation_;
  std::vector<JobProgress> progress_;
  std::vector<std::string> opened_;
};

TEST_F(EvaluateModelTest, ScoresTheSecondHalfOfEachChunk) {
  const auto result = Evaluate(std::string(35, 'x'));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->metrics.at("chunks"), 3);
  EXPECT_EQ(result->metrics.at("tokens"), 3 * 4);
  EXPECT_NEAR(result->metrics.at("perplexity"), 256.0, 1e-9);
  EXPECT_EQ(result->metrics.count("mean_kld"), 0u);
  EXPECT_EQ(progress_.back().done_bytes, 35u);
  EXPECT_EQ(progress_.back().total_bytes, 35u);
}

TEST_F(EvaluateModelTest, ComparesWithABaseModel) {
  const auto result = Evaluate(std::string(35, 'x'), "base");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(opened_, ::testing::ElementsAre("model", "base"));
  const double sum = 255.0 + std::exp(1.0);
  EXPECT_NEAR(result->metrics.at("base_perplexity"), sum, 1e-4);
  const double kld = 255.0 / sum * std::log(256.0 / sum) +
                     std::exp(1.0) / sum * (1.0 + std::log(256.0 / sum));
  EXPECT_NEAR(result->metrics.at("mean_kld"), kld, 1e-6);
  EXPECT_NEAR(result->metrics.at("median_kld"), kld, 1e-6);
  EXPECT_EQ(result->metrics.at("same_top"), 1.0);
}

TEST_F(EvaluateModelTest, RefusesTooLittleTextAndHeedsACancellation) {
  EXPECT_EQ(Evaluate(std::string(19, 'x')).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Evaluate("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Evaluate(std::string(35, 'x'), "missing").status().code(), absl::StatusCode::kNotFound);
  cancellation_.Cancel();
  EXPECT_EQ(Evaluate(std::string(35, 'x')).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace odmoe
