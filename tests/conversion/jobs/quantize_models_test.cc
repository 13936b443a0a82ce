#include "services/conversion/jobs/quantize_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <memory>

#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

// Generates as many tokens as it is asked for, of one log-probability.
class TalkingModel : public LanguageModel {
 public:
  explicit TalkingModel(float logprob) : logprob_(logprob) {}
  absl::StatusOr<ModelInfo> Info() override {
    ModelInfo info;
    info.context_length = 64;
    return info;
  }
  absl::StatusOr<std::vector<TokenId>> Tokenize(absl::string_view text,
                                                const TokenizeOptions&) override {
    return std::vector<TokenId>(text.begin(), text.end());
  }
  absl::StatusOr<std::string> Detokenize(const std::vector<TokenId>&) override { return ""; }
  absl::StatusOr<GenerateSummary> Generate(const GenerateRequest& request, const CallOptions&,
                                           const OnToken& on_token) override {
    for (int32_t i = 0; i < request.max_tokens; ++i) on_token({.token = i, .logprob = logprob_});
    GenerateSummary summary;
    summary.completion_tokens = request.max_tokens;
    summary.timings.tokens_per_second = 40.0;
    return summary;
  }
  absl::StatusOr<ScoreResult> Score(const ScoreRequest& request, const CallOptions&) override {
    return absl::UnimplementedError("no text is scored");
  }

 private:
  const float logprob_;
};

class QuantizeModelsTest : public testing::Test {
 protected:
  QuantizeModelsTest() {
    spec_.source = "source";
    spec_.destination = folder_.path();
    spec_.types = {"q4_0", "q8_0"};
    spec_.batch = true;
    // Two models of 100 weights, a GGUF file and a directory.
    functions_.plan_quantization = [this](const QuantizeOptions& options) {
      QuantizePlan plan{.options = options};
      for (const char* type : {"q4_0", "q8_0"}) {
        QuantizedModel& model = plan.models.emplace_back();
        model.type = type;
        model.path = folder_ / (model.type == "q4_0" ? "a.gguf" : "b");
        model.files = {model.path};
        model.data_bytes = model.disk_bytes = model.type == "q4_0" ? 56 : 106;
        model.elements = 100;
      }
      return plan;
    };
    functions_.run_quantization = [](const QuantizePlan&, const Cancellation*, const auto&) {
      return absl::OkStatus();
    };
    functions_.plan = [](const ConvertOptions& options) { return ConvertPlan{.options = options}; };
    functions_.run = [this](const ConvertPlan& plan, const Cancellation*, const auto&,
                            std::string*) {
      EXPECT_EQ(plan.options.source, folder_ / "a.gguf");
      std::filesystem::create_directory(plan.options.destination);
      return absl::OkStatus();
    };
    functions_.open_model = [this](const std::string& path) {
      opened_.push_back(path);
      return std::make_shared<TalkingModel>(logprob_);
    };
  }

  absl::StatusOr<StepResult> Run() {
    return QuantizeModels(functions_, nullptr, spec_, cancellation_,
                          [this](const JobProgress& now) { phases_.push_back(now.phase); });
  }

  TemporaryDirectory folder_;
  QuantizeSpec spec_;
  ConversionFunctions functions_;
  Cancellation cancellation_;
  float logprob_ = -1.0f;
  std::vector<std::string> opened_, phases_;
};

TEST_F(QuantizeModelsTest, EveryModelOfABatchIsTriedAndTold) {
  const auto result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(opened_, testing::ElementsAre(folder_ / "a.gguf.trial", folder_ / "b"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "a.gguf.trial"));
  EXPECT_THAT(phases_, testing::Each("try"));
  EXPECT_EQ(result->bytes, 162u);
  EXPECT_EQ(result->metrics.at("q4_0.bytes"), 56.0);
  EXPECT_DOUBLE_EQ(result->metrics.at("q4_0.bits_per_weight"), 4.48);
  EXPECT_EQ(result->metrics.at("q8_0.generated_per_second"), 40.0);
}

TEST_F(QuantizeModelsTest, AModelThatDoesNotGenerateFailsTheStepByItsType) {
  logprob_ = std::numeric_limits<float>::quiet_NaN();
  const absl::Status status = Run().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("q4_0: it was tried"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "a.gguf.trial"));
}

TEST_F(QuantizeModelsTest, SkippedTrialsAndSingleModelsOpenNothing) {
  spec_.skip_trial = true;
  EXPECT_TRUE(Run().ok());
  spec_.skip_trial = spec_.batch = false;
  EXPECT_TRUE(Run().ok());
  EXPECT_TRUE(opened_.empty());
}

TEST_F(QuantizeModelsTest, WithoutAnEngineNothingIsBegun) {
  functions_.open_model = nullptr;
  functions_.run_quantization = [](const QuantizePlan&, const Cancellation*, const auto&) {
    ADD_FAILURE();
    return absl::OkStatus();
  };
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace odmoe
