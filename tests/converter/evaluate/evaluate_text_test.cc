#include "converter/evaluate/evaluate_text.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "converter/evaluate/logits_file.h"
#include "converter/evaluate/plot_svg.h"
#include "tests/core/formats/bytes_file.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A token a letter. Its logits depend on the last two tokens and its seed, and it keeps what it was
// asked.
class LetterModel : public LanguageModel {
 public:
  explicit LetterModel(uint32_t seed, float noise = 0.0f) : seed_(seed), noise_(noise) {}

  absl::StatusOr<ModelInfo> Info() override {
    ModelInfo info;
    info.vocabulary_size = vocabulary;
    info.context_length = context;
    return info;
  }
  absl::StatusOr<std::vector<TokenId>> Tokenize(absl::string_view text,
                                                const TokenizeOptions& options) override {
    std::vector<TokenId> tokens;
    if (bos >= 0 && options.add_special) tokens.push_back(bos);
    for (const char c : text) tokens.push_back((c - 'a' + shift) % vocabulary);
    if (bos >= 0 && options.add_special) tokens.push_back(bos);  // EOS, which must not be read
    return tokens;
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
    chunks.push_back(tokens);
    firsts.push_back(first);
    for (int64_t i = first; i < static_cast<int64_t>(tokens.size()); ++i) {
      const absl::Status status = on_logits(i, After(tokens, i));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  std::vector<float> After(const std::vector<TokenId>& tokens, int64_t i) const {
    std::mt19937 random(static_cast<uint32_t>(tokens[i] * 31 + (i > 0 ? tokens[i - 1] : 0)));
    std::mt19937 other(seed_);
    std::normal_distribution<float> normal;
    std::vector<float> logits(vocabulary);
    for (float& logit : logits) logit = 3.0f * normal(random) + noise_ * normal(other);
    if (broken) logits[1] = std::numeric_limits<float>::quiet_NaN();
    return logits;
  }

  int32_t vocabulary = 27;
  int32_t context = 64;
  TokenId bos = -1;
  TokenId shift = 0;
  bool broken = false;
  std::vector<std::vector<TokenId>> chunks;
  std::vector<int64_t> firsts;

 private:
  const uint32_t seed_;
  const float noise_;
};

std::string SomeText(size_t length) {
  std::string text;
  for (size_t i = 0; i < length; ++i) text.push_back(static_cast<char>('a' + i * i % 26));
  return text;
}

std::vector<double> LogSoftmax(const std::vector<float>& logits) {
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  std::vector<double> logprobs;
  for (const float logit : logits) logprobs.push_back(logit - std::log(sum));
  return logprobs;
}

// The definition, spelled out: chunks of 16, positions 8 to 14 score tokens 9 to 15.
struct Expected {
  std::vector<double> nll, base_nll, kld;
  int64_t same_top = 0;
  Expected(const LetterModel& model, const LetterModel& base, const std::vector<TokenId>& tokens) {
    for (size_t chunk = 0; chunk + 16 <= tokens.size(); chunk += 16) {
      std::vector<TokenId> seen(tokens.begin() + chunk, tokens.begin() + chunk + 16);
      const std::vector<TokenId> given = seen;
      if (model.bos >= 0) seen[0] = model.bos;
      for (int64_t i = 8; i < 15; ++i) {
        const std::vector<double> q = LogSoftmax(model.After(seen, i));
        const std::vector<double> p = LogSoftmax(base.After(seen, i));
        nll.push_back(-q[given[i + 1]]);
        base_nll.push_back(-p[given[i + 1]]);
        kld.push_back(0.0);
        for (size_t v = 0; v < q.size(); ++v) kld.back() += std::exp(p[v]) * (p[v] - q[v]);
        same_top += std::max_element(q.begin(), q.end()) - q.begin() ==
                    std::max_element(p.begin(), p.end()) - p.begin();
      }
    }
  }
};

double Mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}
double StandardError(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double v : values) sum += (v - Mean(values)) * (v - Mean(values));
  const auto n = static_cast<double>(values.size());
  return std::sqrt(sum / n / (n - 1.0));
}

absl::StatusOr<TextReport> Evaluate(LanguageModel& model, const std::string& text,
                                    EvaluateTextOptions options) {
  options.chunk_tokens = 16;
  return EvaluateText(model, text, options, nullptr, nullptr);
}

TEST(EvaluateTextTest, ScoresTheSecondHalfOfEachChunk) {
  LetterModel model(1);
  std::vector<TextProgress> progress;
  const std::string text = SomeText(16 * 5 + 9);
  const auto report = EvaluateText(model, text, {.chunk_tokens = 16}, nullptr,
                                   [&](const TextProgress& p) { progress.push_back(p); });
  ASSERT_TRUE(report.ok()) << report.status();
  const Expected expected(model, model, *model.Tokenize(text, {.add_special = false}));
  EXPECT_EQ(report->chunks, 5);
  EXPECT_EQ(report->scored, 5 * 7);
  ASSERT_EQ(expected.nll.size(), 35u);
  const double perplexity = std::exp(Mean(expected.nll));
  EXPECT_NEAR(report->perplexity.value, perplexity, 1e-9 * perplexity);
  EXPECT_NEAR(report->perplexity.error, perplexity * StandardError(expected.nll),
              1e-9 * perplexity);
  EXPECT_FALSE(report->divergence.has_value());
  EXPECT_THAT(model.firsts, ElementsAre(8, 8, 8, 8, 8));
  ASSERT_EQ(progress.size(), 6u);
  EXPECT_EQ(progress.back().done_chunks, 5);
  EXPECT_EQ(progress.back().perplexity, report->perplexity.value);
}

TEST(EvaluateTextTest, BosReplacesTheFirstTokenOfAChunkAndIsNotScored) {
  LetterModel model(1);
  model.bos = 26;
  const std::string text = SomeText(40);
  const auto report = Evaluate(model, text, {});
  ASSERT_TRUE(report.ok()) << report.status();
  // 40 letters and a BOS before them.
  ASSERT_EQ(model.chunks.size(), 2u);
  EXPECT_EQ(model.chunks[0][0], 26);
  EXPECT_EQ(model.chunks[0][1], 0);
  EXPECT_EQ(model.chunks[1][0], 26);
  EXPECT_EQ(model.chunks[1][1], 16 * 16 % 26);
  std::vector<TokenId> tokens = {26};
  const std::vector<TokenId> letters = *model.Tokenize(text, {.add_special = false});
  tokens.insert(tokens.end(), letters.begin(), letters.end());
  EXPECT_NEAR(report->perplexity.value, std::exp(Mean(Expected(model, model, tokens).nll)), 1e-9);
}

TEST(EvaluateTextTest, MeasuresTheDivergenceFromABase) {
  LetterModel model(1, 0.5f);
  LetterModel base(2);
  const std::string text = SomeText(16 * 12);
  const auto report = Evaluate(model, text, {.base = &base});
  ASSERT_TRUE(report.ok() && report->divergence) << report.status();
  const DivergenceReport& d = *report->divergence;
  Expected expected(model, base, *model.Tokenize(text, {.add_special = false}));
  EXPECT_NEAR(d.kld.value, Mean(expected.kld), 1e-6);
  EXPECT_NEAR(d.kld.error, StandardError(expected.kld), 1e-6);
  EXPECT_GT(d.kld.value, 0.01);
  EXPECT_NEAR(d.perplexity.value, report->perplexity.value, 1e-9);
  EXPECT_NEAR(d.base_perplexity.value, std::exp(Mean(expected.base_nll)), 1e-4);
  EXPECT_NEAR(d.ratio.value, d.perplexity.value / d.base_perplexity.value, 1e-9);
  EXPECT_NEAR(d.log_ratio.value, std::log(d.ratio.value), 1e-12);
  std::vector<double> ratios;
  for (size_t i = 0; i < expected.nll.size(); ++i) {
    ratios.push_back(expected.nll[i] - expected.base_nll[i]);
  }
  // The error of a mean of differences, which the covariance must give.
  EXPECT_NEAR(d.log_ratio.error, StandardError(ratios), 1e-6);
  EXPECT_NEAR(d.same_top.value, static_cast<double>(expected.same_top) / 84.0, 1e-12);
  std::sort(expected.kld.begin(), expected.kld.end());
  EXPECT_NEAR(d.kld_percentiles.median, (expected.kld[41] + expected.kld[42]) / 2.0, 1e-6);
  EXPECT_NEAR(d.kld_percentiles.maximum, expected.kld.back(), 1e-6);
  const double place = 0.99 * 83.0;
  EXPECT_NEAR(d.kld_percentiles.p99,
              expected.kld[82] + (place - 82.0) * (expected.kld[83] - expected.kld[82]), 1e-6);
  EXPECT_GT(d.correlation, 0.5);

  const std::string svg = PlotSvg({.title = "a < b", .divergence = &d});
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  EXPECT_THAT(svg, HasSubstr("</svg>"));
}

TEST(EvaluateTextTest, AModelDoesNotDivergeFromItself) {
  LetterModel model(1);
  LetterModel base(1);
  const auto report = Evaluate(model, SomeText(64), {.base = &base});
  ASSERT_TRUE(report.ok() && report->divergence) << report.status();
  EXPECT_NEAR(report->divergence->kld.value, 0.0, 1e-6);
  EXPECT_EQ(report->divergence->same_top.value, 1.0);
  EXPECT_NEAR(report->divergence->rms_delta_p.value, 0.0, 1e-6);
  EXPECT_NEAR(report->divergence->log_ratio.error, 0.0, 1e-6);
}

TEST(EvaluateTextTest, ASavedFileStandsForTheBase) {
  TemporaryDirectory folder;
  LetterModel model(1, 0.5f);
  LetterModel base(2);
  const std::string text = SomeText(16 * 6);
  ASSERT_TRUE(Evaluate(base, text, {.save_logits = folder / "base"}).ok());
  const auto direct = Evaluate(model, text, {.base = &base});
  const auto from_file = Evaluate(model, "", {.base_logits = folder / "base"});
  ASSERT_TRUE(from_file.ok() && from_file->divergence) << from_file.status();
  EXPECT_EQ(from_file->scored, direct->scored);
  EXPECT_EQ(from_file->perplexity.value, direct->perplexity.value);
  // 16 bits over a range of 16.
  EXPECT_NEAR(from_file->divergence->kld.value, direct->divergence->kld.value, 2e-4);
  EXPECT_NEAR(from_file->divergence->base_perplexity.value /
                  direct->divergence->base_perplexity.value,
              1.0, 2e-4);
  EXPECT_EQ(from_file->divergence->same_top.value, direct->divergence->same_top.value);

  LetterModel other(3);
  other.vocabulary = 28;
  EXPECT_THAT(std::string(Evaluate(other, "", {.base_logits = folder / "base"}).status().message()),
              HasSubstr("vocabulary of 27, the model has 28"));
}

TEST(EvaluateTextTest, RefusesWhatItCannotMeasure) {
  LetterModel model(1);
  const auto message = [](const absl::StatusOr<TextReport>& report) {
    EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument) << report.status();
    return std::string(report.status().message());
  };
  EXPECT_THAT(message(Evaluate(model, SomeText(31), {})),
              HasSubstr("31 tokens, at least 32 are needed"));
  EXPECT_THAT(message(EvaluateText(model, SomeText(400), {.chunk_tokens = 65}, nullptr, nullptr)),
              HasSubstr("expected 8 to 64"));
  EXPECT_THAT(message(EvaluateText(model, SomeText(400), {.chunk_tokens = 7}, nullptr, nullptr)),
              HasSubstr("expected 8 to 64"));
  EXPECT_THAT(message(Evaluate(model, SomeText(64), {.max_chunks = -1})), HasSubstr("-1 chunks"));
  LetterModel base(2);
  base.shift = 1;
  EXPECT_THAT(message(Evaluate(model, SomeText(64), {.base = &base})), HasSubstr("other tokens"));
  base.vocabulary = 30;
  EXPECT_THAT(message(Evaluate(model, SomeText(64), {.base = &base})),
              HasSubstr("vocabulary of 30"));
  EXPECT_THAT(message(Evaluate(model, "", {.base = &base, .base_logits = "x"})),
              HasSubstr("give one"));
  model.broken = true;
  EXPECT_EQ(Evaluate(model, SomeText(64), {}).status().code(), absl::StatusCode::kDataLoss);
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_EQ(EvaluateText(base, SomeText(64), {.chunk_tokens = 16}, &cancellation, nullptr)
                .status().code(),
            absl::StatusCode::kCancelled);
}

// "_logits_" of two chunks of eight tokens out of five.
std::string LogitsBytes() {
  TemporaryDirectory folder;
  LogitsFileHeader header = {8, 5, 2, std::vector<TokenId>(16, 4)};
  auto writer = LogitsFileWriter::Create(PosixFileSystem(), folder / "logits", header);
  EXPECT_TRUE(writer.ok()) << writer.status();
  for (int i = 0; i < 6; ++i) {
    EXPECT_TRUE((*writer)->Append({1.0f, 2.0f, -30.0f, 0.5f, static_cast<float>(i)}).ok());
  }
  EXPECT_EQ((*writer)->Append(std::vector<float>(5)).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE((*writer)->Finish().ok());
  return ReadFileOrDie(folder / "logits");
}

TEST(LogitsFileTest, HasTheReferenceToolsLayout) {
  const std::string bytes = LogitsBytes();
  // 20 of the header, 16 tokens, 6 rows of two floats and 6 (5 and a pad) codes.
  ASSERT_EQ(bytes.size(), 20u + 16 * 4 + 6 * (8 + 12));
  const auto file = LogitsFile::Open(BytesFile(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->header().chunk_tokens, 8);
  EXPECT_EQ((*file)->header().chunks, 2);
  std::vector<float> row(5);
  ASSERT_TRUE((*file)->ReadRow(1, 2, absl::MakeSpan(row)).ok());
  const std::vector<double> expected = LogSoftmax({1.0f, 2.0f, -30.0f, 0.5f, 5.0f});
  for (const int i : {0, 1, 3, 4}) EXPECT_NEAR(row[i], expected[i], 2e-4);
  // Kept as 16 below the most likely.
  EXPECT_NEAR(row[2], expected[4] - 16.0, 2e-4);
}

TEST(LogitsFileTest, RefusesDamage) {
  const std::string bytes = LogitsBytes();
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    EXPECT_FALSE(LogitsFile::Open(BytesFile(bytes.substr(0, cut))).ok()) << cut;
  }
  EXPECT_FALSE(LogitsFile::Open(BytesFile(bytes + "x")).ok());
  const auto with = [&bytes](size_t at, int32_t value) {
    std::string changed = bytes;
    changed.replace(at, sizeof(value), reinterpret_cast<const char*>(&value), sizeof(value));
    return LogitsFile::Open(BytesFile(changed));
  };
  EXPECT_EQ(with(0, 0).status().code(), absl::StatusCode::kInvalidArgument);
  for (const size_t size_at : {8, 12, 16}) {
    for (const int32_t value : {-1, 0, 0x7fffffff}) {
      EXPECT_EQ(with(size_at, value).status().code(), absl::StatusCode::kDataLoss);
    }
  }
  EXPECT_THAT(std::string(with(20, 5).status().message()), HasSubstr("token 0 is 5"));
  const auto endless = with(20 + 64, 0x7f800000);  // a scale of infinity
  ASSERT_TRUE(endless.ok());
  std::vector<float> row(5);
  EXPECT_EQ((*endless)->ReadRow(0, 0, absl::MakeSpan(row)).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace odmoe
