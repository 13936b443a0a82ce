// Quantization from every form of a model into every form, several at once, interrupted, and
// refused.
#include "converter/quantize/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "converter/merge/merge.h"
#include "converter/quantize/tensor_pattern.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/units.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/gguf_writer.h"
#include "tests/converter/quantize/made_model.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

const std::string kTinyKimi = ODMOE_TEST_DATA "/tiny-kimi";

absl::Status Quantize(const QuantizeOptions& options) {
  const auto plan = PlanQuantization(options);
  return plan.ok() ? RunQuantization(*plan, nullptr, nullptr) : plan.status();
}

absl::Status Convert(const ConvertOptions& options) {
  const auto plan = PlanConversion(options);
  return plan.ok() ? RunConversion(*plan, nullptr, nullptr) : plan.status();
}

std::string HashOf(const std::string& path) {
  const std::string bytes = ReadFileOrDie(path);
  return absl::StrFormat("%016x", XXH3_64bits(bytes.data(), bytes.size()));
}

// The model of tests/data, as the tests before have it.
const nlohmann::json& TinyKimiHashes() {
  static const nlohmann::json* hashes = new nlohmann::json(
      nlohmann::json::parse(ReadFileOrDie(ODMOE_TEST_DATA "/quantize/tiny-kimi.json")));
  return *hashes;
}

TEST(QuantizeTest, FromACheckpointInOneGoAsTheReferenceFromTheF32File) {
  TemporaryDirectory folder;
  const std::vector<std::string> types = {"q4_k_m", "q6_k", "q8_0"};
  ASSERT_EQ(
      Quantize(
          {.source = kTinyKimi, .destination = folder / "models", .types = types, .batch = true}),
      absl::OkStatus());
  for (const std::string& type : types) {
    EXPECT_EQ(HashOf(folder / ("models/tiny-kimi-" + type + ".gguf")), TinyKimiHashes()[type])
        << type;
  }
}

TEST(QuantizeTest, FromAModelDirectoryToSeveralAndBackIsTheSameFiles) {
  TemporaryDirectory folder;
  ASSERT_EQ(Convert({.source = kTinyKimi, .destination = folder / "wide", .outtype = "f32"}),
            absl::OkStatus());
  const std::vector<std::string> types = {"q4_0", "q8_0"};
  ASSERT_EQ(Quantize({.source = folder / "wide",
                      .destination = folder / "models",
                      .types = types,
                      .batch = true,
                      .directories = true,
                      .concurrency = 3}),
            absl::OkStatus());
  for (const std::string& type : types) {
    const auto merged = MergeModel({.directory = folder / ("models/wide-" + type),
                                    .destination = folder / (type + ".gguf")},
                                   nullptr, nullptr);
    ASSERT_TRUE(merged.ok()) << merged.status();
    EXPECT_EQ(HashOf(folder / (type + ".gguf")), TinyKimiHashes()[type]) << type;
  }
}

class MadeModelTest : public testing::Test {
 protected:
  MadeModelTest() { WriteFileOrDie(source_, MakeModel("latent")); }

  QuantizeOptions To(const std::string& destination, std::vector<std::string> types) {
    return {.source = source_, .destination = folder_ / destination, .types = std::move(types)};
  }

  TemporaryDirectory folder_;
  const std::string source_ = folder_ / "model.gguf";
};

TEST_F(MadeModelTest, SeveralAtOnceAreAsOneByOneForAnyNumberOfWorkers) {
  const std::vector<std::string> types = {"q2_k", "q4_k_m", "bf16"};
  for (const int concurrency : {1, 4}) {
    QuantizeOptions batch = To(absl::StrCat("batch", concurrency), types);
    batch.batch = true;
    batch.concurrency = concurrency;
    ASSERT_EQ(Quantize(batch), absl::OkStatus());
    for (const std::string& type : types) {
      ASSERT_EQ(Quantize(To(type + ".gguf", {type})), absl::OkStatus());
      EXPECT_EQ(HashOf(batch.destination + "/model-" + type + ".gguf"),
                HashOf(folder_ / (type + ".gguf")));
    }
    EXPECT_FALSE(std::filesystem::exists(batch.destination + "/conversion.journal"));
  }
}

TEST_F(MadeModelTest, ShardsAreCutBySizeOrKept) {
  QuantizeOptions cut = To("cut.gguf", {"q5_k_m"});
  cut.split_max_bytes = 60'000;
  const auto plan = PlanQuantization(cut);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_GT(plan->models[0].files.size(), 1u);
  ASSERT_EQ(RunQuantization(*plan, nullptr, nullptr), absl::OkStatus());

  QuantizeOptions again = To("kept.gguf", {"q4_0"});
  again.source = plan->models[0].files[0];
  again.keep_split = again.tensors.allow_requantize = true;
  const auto kept = PlanQuantization(again);
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(kept->models[0].files.size(), plan->models[0].files.size());
  ASSERT_EQ(RunQuantization(*kept, nullptr, nullptr), absl::OkStatus());
  // The first has all keys and no more than its own tensors.
  const auto model = GgufModel::Open(PosixFileSystem(), kept->models[0].files[1]);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->tensors().size(), kept->models[0].tensors.size());
  EXPECT_EQ(*(*model)->metadata().GetU32("general.file_type"), 2u);
}

TEST_F(MadeModelTest, AnInterruptedRunGoesOn) {
  ASSERT_EQ(Quantize(To("whole.gguf", {"q4_k_s"})), absl::OkStatus());
  const QuantizeOptions options = To("stopped.gguf", {"q4_k_s"});
  const auto plan = PlanQuantization(options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  Cancellation cancellation;
  const absl::Status stopped =
      RunQuantization(*plan, &cancellation, [&](const ConvertProgress& progress) {
        if (progress.done_bytes > progress.total_bytes / 2) cancellation.CancelAndKeepWork();
      });
  ASSERT_EQ(stopped.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(options.destination));
  const auto resumed = PlanQuantization(options);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_GT(resumed->resumed_bytes, plan->data_bytes() / 3);
  ASSERT_EQ(RunQuantization(*resumed, nullptr, nullptr), absl::OkStatus());
  EXPECT_EQ(HashOf(options.destination), HashOf(folder_ / "whole.gguf"));
}

TEST_F(MadeModelTest, WhatCannotWorkIsToldBeforeAnythingIsWritten) {
  WriteFileOrDie(folder_ / "quantized.gguf", MakeModel("quantized"));
  WriteFileOrDie(folder_ / "other.imatrix", MakeImportance("dense"));
  const auto message = [&](auto change) {
    QuantizeOptions options = To("out.gguf", {"q4_k_m"});
    change(options);
    const absl::Status status = PlanQuantization(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out.gguf"));
    return std::string(status.message());
  };
  EXPECT_THAT(message([&](auto& o) { o.source = folder_ / "quantized.gguf"; }),
              HasSubstr("is q8_0 already"));
  EXPECT_THAT(message([&](auto& o) { o.types = {"q2_k_s"}; }), HasSubstr("needs an importance"));
  EXPECT_THAT(message([&](auto& o) { o.importance = folder_ / "other.imatrix"; }),
              HasSubstr("blk."));
  EXPECT_THAT(message([](auto& o) { o.types = {"q4_k_x"}; }), HasSubstr("offered: tq1_0, tq2_0"));
  EXPECT_THAT(message([](auto& o) { o.types = {"iq2_xs"}; }), HasSubstr("only iq4_nl"));
  EXPECT_THAT(message([](auto& o) { o.types = {}; }), HasSubstr("needs a type"));
  EXPECT_THAT(message([](auto& o) { o.types = {"q4_0", "q8_0"}; }), HasSubstr("folder of models"));
  EXPECT_THAT(message([](auto& o) {
                o.types = {"q4_K", "q4_k_m"};
                o.batch = true;
                o.destination += "s";
              }),
              HasSubstr("named twice"));
  EXPECT_THAT(message([](auto& o) { o.batch = true; }), HasSubstr("ends in .gguf"));
  EXPECT_THAT(message([&](auto& o) { o.destination = folder_ / "./model.gguf"; }),
              HasSubstr("is the source"));
  EXPECT_THAT(message([](auto& o) { o.tensors.pure = true; }), HasSubstr("rows of 128"));
  EXPECT_THAT(message([](auto& o) { o.tensors.tensor_types = {"attn"}; }),
              HasSubstr("REGEX=FORMAT"));
  EXPECT_THAT(message([](auto& o) { o.tensors.tensor_types = {"a=q9_K"}; }), HasSubstr("q9_K"));
  EXPECT_THAT(message([](auto& o) { o.tensors.tensor_types = {"(a=q6_K"}; }), HasSubstr("at 2"));
  EXPECT_THAT(message([](auto& o) { o.tensors.tensor_types = {"attn_q_a=iq2_xs"}; }),
              HasSubstr("is read, and not written"));
  EXPECT_THAT(message([](auto& o) { o.tensors.tensor_types = {"attn_k_b=q8_K"}; }),
              HasSubstr("no format to fall back to"));
  EXPECT_THAT(message([](auto& o) { o.tensors.output_tensor_type = "large"; }),
              HasSubstr("output tensor type"));
  EXPECT_THAT(message([&](auto& o) {
                o.destination = folder_ / "d";
                o.keep_split = true;
              }),
              HasSubstr("only GGUF files"));
  EXPECT_THAT(message([](auto& o) {
                o.keep_split = true;
                o.split_max_bytes = 1;
              }),
              HasSubstr("not both"));
}

TEST_F(MadeModelTest, TernaryFormatsTakeTernaryWeightsOrForce) {
  QuantizeOptions raw = To("raw.gguf", {"tq2_0"});
  const absl::Status refused = PlanQuantization(raw).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("is not ternary"), HasSubstr("cosine of 0."), HasSubstr("--force")));
  raw.tensors.force_ternary = true;
  const auto make = [](const QuantizeOptions& options) {
    const auto plan = PlanQuantization(options);
    return plan.ok() ? RunQuantization(*plan, nullptr, nullptr) : plan.status();
  };
  ASSERT_EQ(make(raw), absl::OkStatus());

  // Widened to floats it is ternary, and needs no force to become the same file again.
  QuantizeOptions wide = To("wide.gguf", {"f32"});
  wide.source = raw.destination;
  wide.tensors.allow_requantize = true;
  ASSERT_EQ(make(wide), absl::OkStatus());
  QuantizeOptions again = To("again.gguf", {"tq2_0"});
  again.source = wide.destination;
  again.tensors.tensor_types = {"output|token_embd=f32"};
  EXPECT_EQ(make(again), absl::OkStatus());
}

TEST_F(MadeModelTest, AWeightThatIsNoNumberIsNamed) {
  std::string bytes = MakeModel("dense");
  const uint16_t nan = 0x7fc0;
  // Behind the embeddings and some of the last layer: blk.15.ffn_gate.weight's second row.
  WriteFileOrDie(source_, bytes);
  const auto model = GgufModel::Open(PosixFileSystem(), source_);
  ASSERT_TRUE(model.ok()) << model.status();
  const GgufTensor* tensor = (*model)->Find("blk.15.ffn_gate.weight");
  ASSERT_NE(tensor, nullptr);
  std::memcpy(bytes.data() + (*model)->PlaceOf(*tensor).offset + 2 * 256, &nan, sizeof(nan));
  WriteFileOrDie(source_, bytes);
  const absl::Status status = Quantize(To("out.gguf", {"q4_k_m"}));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("blk.15.ffn_gate.weight"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.gguf"));
}

TEST(TensorPatternTest, StopsAnExpressionThatTakesTooLong) {
  const auto pattern = TensorPattern::Compile("(a+)+[0-9]");
  ASSERT_TRUE(pattern.ok()) << pattern.status();
  EXPECT_EQ(pattern->IsIn(std::string(60, 'a')).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(TensorPattern::Compile(std::string(2000, 'a')).ok());
  EXPECT_TRUE(*TensorPattern::Compile("FFN_(up|gate)_")->IsIn("blk.3.ffn_gate_exps.weight"));
}

// A stack of experts of 4 GB as floats, of which only the header is on the disk.
TEST(QuantizeTest, HoldsPiecesOfAHugeTensorOnly) {
  TemporaryDirectory folder;
  GgufHeader header;
  header.metadata.Set("general.architecture", GgufValue::String("deepseek2"));
  header.metadata.Set("deepseek2.block_count", GgufValue::U32(1));
  header.metadata.Set("deepseek2.expert_count", GgufValue::U32(64));
  header.tensors.push_back({"blk.0.ffn_gate_exps.weight", DType::kBF16, {7168, 2048, 64}});
  ASSERT_EQ(LayOutGgufTensors(header), absl::OkStatus());
  const std::string text = *EncodeGgufHeader(header);
  WriteFileOrDie(folder / "huge.gguf", text);
  std::filesystem::resize_file(folder / "huge.gguf", text.size() + header.tensors[0].bytes);

  const auto plan = PlanQuantization({.source = folder / "huge.gguf",
                                      .destination = folder / "out.gguf",
                                      .types = {"q8_0"},
                                      .concurrency = 4});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_DOUBLE_EQ(plan->models[0].bits_per_weight(), 8.5);
  const uint64_t before = PeakRssBytes();
  Cancellation cancellation;
  const absl::Status stopped =
      RunQuantization(*plan, &cancellation, [&](const ConvertProgress& progress) {
        if (progress.done_bytes > 48 * kMiB) cancellation.Cancel();
      });
  EXPECT_EQ(stopped.code(), absl::StatusCode::kCancelled);
  EXPECT_LT(PeakRssBytes() - before, 200 * kMiB);
  EXPECT_FALSE(std::filesystem::exists(folder / "out.gguf.partial"));
}

}  // namespace
}  // namespace odmoe
