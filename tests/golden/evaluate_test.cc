// Quantized forms of the trained tiny model against what the reference measured: perplexity, KL
// divergence from the checkpoint, share of equal most likely tokens.
#include <memory>
#include <string>
#include <vector>

#include "converter/evaluate/evaluate_text.h"
#include "converter/quantize/gather_importance.h"
#include "converter/quantize/importance_matrix.h"
#include "converter/quantize/quantize.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/expert_storage/open_expert_store.h"
#include "services/inference/engine/local_language_model.h"
#include "tests/support/sanitized.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_kimi.h"

namespace odmoe {
namespace {

std::unique_ptr<LanguageModel> OpenWhole(const std::string& directory,
                                         InputObserver* observer = nullptr) {
  auto store = OpenExpertStore({directory, {Budget::Kind::kPercent, 0, 100.0}});
  EXPECT_TRUE(store.ok()) << store.status();
  if (!store.ok()) return nullptr;
  auto model = OpenLocalLanguageModel(
      {.model_directory = directory, .experts = *std::move(store), .observer = observer});
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : nullptr;
}

class QuantizedTest : public testing::TestWithParam<const char*> {};

TEST_P(QuantizedTest, LosesWhatTheReferenceSaysItLoses) {
  if (kSanitized) GTEST_SKIP() << "takes minutes under a sanitizer; the release build runs it";
  const TemporaryDirectory folder;
  QuantizeOptions options;
  options.source = ODMOE_TEST_DATA "/tiny-kimi";
  options.destination = folder / "model";
  options.types = {GetParam()};
  const auto plan = PlanQuantization(options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_TRUE(RunQuantization(*plan, nullptr, [](const ConvertProgress&) {}).ok());
  const auto model = OpenWhole(folder / "model");
  const auto base = OpenWhole(TinyKimiDirectory("f32"));
  ASSERT_TRUE(model != nullptr && base != nullptr);

  const std::string data = ODMOE_TEST_DATA "/tiny-kimi-reference/";
  const auto reference = nlohmann::json::parse(ReadFileOrDie(data + "quantized.json"));
  EvaluateTextOptions evaluate;
  evaluate.chunk_tokens = reference["n_ctx"];
  evaluate.max_chunks = reference["chunks"];
  evaluate.base = base.get();
  const auto report = EvaluateText(*model, ReadFileOrDie(data + "evaluation.txt"), evaluate,
                                   nullptr, nullptr);
  ASSERT_TRUE(report.ok() && report->divergence) << report.status();
  const auto& expected = reference[GetParam()];
  const DivergenceReport& divergence = *report->divergence;
  EXPECT_EQ(report->scored, expected["tokens"].get<int64_t>());
  // The reference keeps activations exact, and its base log-probabilities in 16 bits, which gives a
  // model some 2e-6 from itself; we round activations where they meet q8_0.
  const double perplexity = expected["perplexity"];
  EXPECT_NEAR(report->perplexity.value / perplexity, 1.0, 1e-3);
  EXPECT_NEAR(divergence.base_perplexity.value, reference["checkpoint"]["perplexity"], 0.01);
  const double kld = expected["mean_kld"];
  EXPECT_NEAR(divergence.kld.value, kld, 5e-4 + 0.02 * kld);
  EXPECT_NEAR(divergence.kld_percentiles.median, expected["median_kld"], 2e-4 + 0.03 * kld);
  EXPECT_NEAR(divergence.same_top.value, expected["same_top"], 0.005);
}

INSTANTIATE_TEST_SUITE_P(EachType, QuantizedTest,
                         testing::Values("f32", "q8_0", "q6_k", "q4_k_m", "q4_0", "q2_k"),
                         [](const auto& info) { return std::string(info.param); });

// What the mainline engine's products took in while it read the same chunks.
TEST(ImportanceTest, AgreesWithTheReferenceEngine) {
  const std::string data = ODMOE_TEST_DATA "/tiny-kimi-reference/";
  const auto reference = nlohmann::json::parse(ReadFileOrDie(data + "importance.json"));
  ImportanceSums sums;
  const auto model = OpenWhole(TinyKimiDirectory("f32"), &sums);
  ASSERT_NE(model, nullptr);
  GatherImportanceOptions options;
  options.chunk_tokens = reference["chunk_tokens"];
  options.max_chunks = reference["chunks"];
  const auto chunks = GatherImportance(*model, ReadFileOrDie(data + "evaluation.txt"), sums,
                                       options, nullptr, nullptr);
  ASSERT_TRUE(chunks.ok()) << chunks.status();
  const TemporaryDirectory folder;
  ASSERT_TRUE(sums.Write(PosixFileSystem(), folder / "importance.gguf",
                         {{"evaluation.txt"}, static_cast<uint32_t>(*chunks), 256}).ok());
  const auto matrix = ImportanceMatrix::Open(PosixFileSystem(), folder / "importance.gguf");
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ((*matrix)->size(), reference["tensors"].size());
  for (const auto& [name, tensor] : reference["tensors"].items()) {
    SCOPED_TRACE(name);
    ASSERT_NE((*matrix)->counts(name), nullptr);
    const auto counts = tensor["counts"].get<std::vector<int64_t>>();
    ASSERT_EQ(*(*matrix)->counts(name), counts);
    const auto matrices = static_cast<int64_t>(counts.size());
    const int64_t columns = tensor["values"].get<int64_t>() / matrices;
    for (int64_t i = 0; i < matrices; ++i) {
      if (counts[i] == 0) continue;
      const auto values = (*matrix)->ForTensor(name, columns, matrices, i);
      ASSERT_TRUE(values.ok()) << values.status();
      double sum = 0.0;
      for (const float value : *values) sum += value;
      const auto count = static_cast<double>(counts[i]);
      const double expected = tensor["sums"][i].get<double>() / count;
      EXPECT_NEAR(sum, expected, 1e-4 * expected);
      const double column = tensor["columns"][i][1].get<double>() / count;
      EXPECT_NEAR((*values)[tensor["columns"][i][0].get<int64_t>()], column,
                  1e-3 * column + 1e-6 * expected);
    }
  }
}

}  // namespace
}  // namespace odmoe
