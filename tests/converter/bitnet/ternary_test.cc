// BitNet checkpoints in every form, in every format.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "converter/bitnet/ternary_report.h"
#include "converter/convert.h"
#include "converter/merge/merge.h"
#include "converter/quantize/encode.h"
#include "services/core/experts/no_expert_store.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/formats/model_directory.h"
#include "services/core/formats/safetensors.h"
#include "services/core/tensor/convert.h"
#include "services/core/tensor/i2_s.h"
#include "tests/support/bitnet_checkpoint.h"
#include "tests/support/made_checkpoint.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

class TernaryTest : public testing::Test {
 protected:
  std::string Made(const BitnetOptions& options, const std::string& name = "checkpoint") {
    WriteBitnetCheckpoint(options, folder_ / name);
    return folder_ / name;
  }
  absl::Status Convert(const std::string& source, const std::string& destination,
                       const std::string& outtype, bool force = false) {
    const auto plan = PlanConversion({.source = source,
                                      .destination = destination,
                                      .outtype = outtype,
                                      .force_ternary = force,
                                      .restart = true});
    if (!plan.ok()) return plan.status();
    return RunConversion(*plan, nullptr, [](const ConvertProgress&) {});
  }
  std::string ConvertOrDie(const std::string& source, const std::string& outtype) {
    const std::string out = absl::StrCat(source, "-", outtype, ".gguf");
    EXPECT_EQ(Convert(source, out, outtype), absl::OkStatus()) << outtype;
    return out;
  }
  const TemporaryDirectory folder_;
};

std::unique_ptr<GgufReader> OpenGguf(const std::string& path) {
  auto file = PosixFileSystem().OpenForRead(path);
  EXPECT_TRUE(file.ok()) << file.status();
  auto reader = GgufReader::Open(*std::move(file));
  EXPECT_TRUE(reader.ok()) << reader.status();
  return *std::move(reader);
}

// A whole tensor as numbers, i2_s too.
std::vector<float> ReadValues(const GgufReader& reader, const std::string& name) {
  const GgufTensor* tensor = reader.Find(name);
  EXPECT_NE(tensor, nullptr) << name;
  std::vector<std::byte> bytes(tensor->bytes);
  EXPECT_EQ(reader.ReadTensor(*tensor, 0, absl::MakeSpan(bytes)), absl::OkStatus());
  std::vector<float> values(static_cast<size_t>(tensor->rows() * tensor->columns()));
  if (tensor->dtype == DType::kI2_S) {
    std::vector<int8_t> codes(values.size());
    EXPECT_TRUE(DecodeI2_SRow(bytes.data(), absl::MakeSpan(codes)));
    const float scale = DecodeI2_SScale(bytes.data() + codes.size() / 4);
    for (size_t i = 0; i < codes.size(); ++i) values[i] = static_cast<float>(codes[i]) * scale;
  } else {
    EXPECT_EQ(DecodeRow(tensor->dtype, bytes.data(), absl::MakeSpan(values)), absl::OkStatus());
  }
  return values;
}

// Weight by weight: the code exactly, the scale as near as the format has it.
void ExpectWeights(const GgufReader& reader, const BitnetProjection& p, float tolerance) {
  const std::vector<float> values = ReadValues(reader, p.gguf);
  ASSERT_EQ(values.size(), p.codes.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const float expected = static_cast<float>(p.codes[i]) * p.scale;
    ASSERT_NEAR(values[i], expected, tolerance * p.scale) << p.gguf << " weight " << i;
    ASSERT_EQ(values[i] > 0.0f ? 1 : values[i] < 0.0f ? -1 : 0, p.codes[i]);
  }
}

TEST_F(TernaryTest, EveryFormatGivesBackEveryWeight) {
  const struct {
    const char* outtype;
    DType dtype;
    float tolerance;  // of the scale: half a unit in the last place, twice in q8_0
  } cases[] = {{"f32", DType::kF32, 1e-6f},     {"f16", DType::kF16, 5e-4f},
               {"bf16", DType::kBF16, 4e-3f},   {"q8_0", DType::kQ8_0, 1e-3f},
               {"tq1_0", DType::kTQ1_0, 5e-4f}, {"tq2_0", DType::kTQ2_0, 5e-4f},
               {"i2_s", DType::kI2_S, 1e-6f}};
  for (const BitnetStorage storage :
       {BitnetStorage::kPacked, BitnetStorage::kOnline, BitnetStorage::kTernary}) {
    const std::string source = Made({.storage = storage});
    const auto report = ReportTernary(PosixFileSystem(), source);
    ASSERT_TRUE(report.ok()) << report.status();
    for (const auto& c : cases) {
      // Once decoded, all storages are one.
      if (storage != BitnetStorage::kPacked && c.dtype != DType::kTQ1_0 &&
          c.dtype != DType::kI2_S) {
        continue;
      }
      const std::string out = absl::StrCat(source, "-", c.outtype, ".gguf");
      ASSERT_EQ(Convert(source, out, c.outtype), absl::OkStatus()) << c.outtype;
      const auto reader = OpenGguf(out);
      for (const BitnetProjection& p : BitnetProjections(storage)) {
        EXPECT_EQ(reader->Find(p.gguf)->dtype, c.dtype);
        ExpectWeights(*reader, p, c.tolerance);
      }
      EXPECT_EQ(*VerifyTernaryFile(PosixFileSystem(), out, *report, nullptr),
                2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256));
      std::filesystem::remove(out);
    }
    std::filesystem::remove_all(source);
  }
}

TEST_F(TernaryTest, KeysAndOtherWeightsAreThoseOfTheArchitecture) {
  const auto reader = OpenGguf(ConvertOrDie(Made({}), "i2_s"));
  const GgufMetadata& keys = reader->metadata();
  EXPECT_EQ(*keys.GetString("general.architecture"), "bitnet-b1.58");
  EXPECT_EQ(*keys.GetU32("general.file_type"), 40u);
  EXPECT_EQ(*keys.GetU32("bitnet-b1.58.attention.head_count_kv"), 2u);
  EXPECT_EQ(*keys.GetU32("bitnet-b1.58.rope.dimension_count"), 64u);
  EXPECT_EQ(*keys.GetU32("bitnet-b1.58.vocab_size"), 280u);
  EXPECT_EQ(*keys.GetString("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(reader->Find("token_embd.weight")->dtype, DType::kF16);
  EXPECT_EQ(reader->Find("blk.1.attn_sub_norm.weight")->dtype, DType::kF32);
  EXPECT_EQ(reader->Find("blk.1.ffn_sub_norm.weight")->dtype, DType::kF32);
  EXPECT_EQ(reader->Find("output.weight"), nullptr);  // tied
  EXPECT_EQ(reader->Find("blk.0.attn_q.weight")->bytes, 256u * 256 / 4 + 32);
}

TEST_F(TernaryTest, SpellingsAndMeaningsOfTheScaleGiveTheSameModel) {
  const std::string plain = ConvertOrDie(Made({}), "tq2_0");
  const std::string old = ConvertOrDie(Made({.old_spelling = true}, "old"), "tq2_0");
  const auto a = OpenGguf(plain), b = OpenGguf(old);
  ASSERT_EQ(a->tensors().size(), b->tensors().size());
  for (const GgufTensor& tensor : a->tensors()) {
    EXPECT_EQ(ReadValues(*a, tensor.name), ReadValues(*b, tensor.name)) << tensor.name;
  }
  const auto inverse = OpenGguf(ConvertOrDie(Made({.scale_divides = true}, "inverse"), "i2_s"));
  for (const BitnetProjection& p : BitnetProjections(BitnetStorage::kPacked)) {
    ExpectWeights(*inverse, p, 5e-3f);  // 1 / scale was rounded to bf16
  }
}

TEST_F(TernaryTest, ReportsSharesAndHowWeightsAreStored) {
  for (const BitnetStorage storage : {BitnetStorage::kPacked, BitnetStorage::kOnline}) {
    const auto report =
        ReportTernary(PosixFileSystem(),
                      Made({.storage = storage}, storage == BitnetStorage::kPacked ? "p" : "o"));
    ASSERT_TRUE(report.ok()) << report.status();
    const auto projections = BitnetProjections(storage);
    ASSERT_EQ(report->rows.size(), projections.size());
    for (const BitnetProjection& p : projections) {
      const auto row = std::find_if(report->rows.begin(), report->rows.end(),
                                    [&](const TernaryRow& r) { return r.name == p.gguf; });
      ASSERT_NE(row, report->rows.end());
      EXPECT_EQ(row->packed, storage == BitnetStorage::kPacked);
      EXPECT_EQ(row->shares.zeros, std::count(p.codes.begin(), p.codes.end(), 0));
      EXPECT_EQ(row->shares.plus, std::count(p.codes.begin(), p.codes.end(), 1));
      EXPECT_EQ(row->shares.minus, std::count(p.codes.begin(), p.codes.end(), -1));
      EXPECT_FLOAT_EQ(row->shares.scale, p.scale);
      if (row->packed) EXPECT_EQ(row->shares.cosine, 1.0);
      if (!row->packed) EXPECT_NEAR(row->shares.cosine, 0.9, 0.05);  // of uniform weights
    }
  }
}

// Without experts: a registry of none. What lies behind i2_s's rows goes along.
TEST_F(TernaryTest, AModelDirectoryMergesBackIntoItsFile) {
  const std::string gguf = ConvertOrDie(Made({}), "i2_s");
  ASSERT_EQ(Convert(gguf, folder_ / "split", "auto"), absl::OkStatus());
  ASSERT_EQ(Convert(folder_ / "checkpoint", folder_ / "direct", "i2_s"), absl::OkStatus());
  for (const char* file : {"base_model/attention_layers.safetensors", "experts/registry.json"}) {
    EXPECT_EQ(ReadFileOrDie(folder_ / "split/" + file), ReadFileOrDie(folder_ / "direct/" + file));
  }
  const auto registry = ReadDenseRegistry(folder_ / "direct");
  ASSERT_TRUE(registry.ok() && registry->has_value()) << registry.status();
  const auto merged =
      MergeModel({.directory = folder_ / "split", .destination = folder_ / "merged.gguf"}, nullptr,
                 [](const ConvertProgress&) {});
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_TRUE(ReadFileOrDie(folder_ / "merged.gguf") == ReadFileOrDie(gguf));
  const auto store = MakeNoExpertStore((*registry)->catalog);
  EXPECT_TRUE(store->Acquire({}, absl::InfiniteFuture()).ok());
  const ExpertId none[] = {{0, 0}};
  EXPECT_EQ(store->Acquire(none, absl::InfiniteFuture()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(TernaryTest, ADamagedFileIsFound) {
  const std::string source = Made({});
  const auto report = ReportTernary(PosixFileSystem(), source);
  const std::string path = ConvertOrDie(source, "i2_s");
  std::string bytes = ReadFileOrDie(path);
  const auto reader = OpenGguf(path);
  const GgufTensor* tensor = reader->Find("blk.1.ffn_down.weight");
  bytes[reader->data_offset() + tensor->offset + 77] ^= 0x10;
  WriteFileOrDie(path, bytes);
  const auto verified = VerifyTernaryFile(PosixFileSystem(), path, *report, nullptr);
  EXPECT_EQ(verified.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(verified.status().message()), HasSubstr("'blk.1.ffn_down.weight'"));
}

// The made checkpoint's weights with one edit.
TEST_F(TernaryTest, RefusesWhatContradictsItself) {
  const std::string q = "model.layers.0.self_attn.q_proj.weight";
  const struct {
    const char* name;
    std::string from, to;  // in config.json, or in the weights' header
    bool in_weights;
    const char* message;
  } cases[] = {
      {"Activation", R"("relu2")", R"("gelu")", false, "'hidden_act' should be"},
      {"Mode", R"("offline")", R"("later")", false, "quantization_mode is 'later'"},
      {"NoScale", q + "_scale", q + "_skale", true,
       "has no '"
       "model.layers.0.self_attn.q_proj"},
      {"ScaleNoFloat", R"(_scale":{"dtype":"BF16")", R"(_scale":{"dtype":"U16" )", true,
       "no float"},
      {"NormMissing", "model.layers.1.mlp.ffn_sub_norm.weight",
       "model.layers.1.mlp.ffn_sub_nort.weight", true, "ffn_sub_norm.weight"},
  };
  for (const auto& c : cases) {
    const std::string source = Made({}, c.name);
    const std::string path = source + (c.in_weights ? "/model.safetensors" : "/config.json");
    const std::string text = ReadFileOrDie(path);
    ASSERT_THAT(text, HasSubstr(c.from));
    WriteFileOrDie(path, absl::StrReplaceAll(text, {{c.from, c.to}}));
    EXPECT_THAT(std::string(Convert(source, folder_ / "x.gguf", "tq2_0").message()),
                HasSubstr(c.message))
        << c.name;
  }
}

TEST_F(TernaryTest, RefusesCodesAndScalesThatStandForNothing) {
  const std::string source = Made({});
  const std::string path = source + "/model.safetensors";
  const std::string good = ReadFileOrDie(path);
  auto file = PosixFileSystem().OpenForRead(path);
  const auto reader = *SafetensorsReader::Open(*std::move(file));
  const std::string name = "model.layers.1.mlp.gate_proj.weight";
  const auto at = [&](const std::string& tensor) {
    return static_cast<size_t>(reader->Find(tensor)->offset);
  };
  const auto message = [&](size_t offset, const std::string& bytes) {
    std::string edited = good;
    edited.replace(offset, bytes.size(), bytes);
    WriteFileOrDie(path, edited);
    return std::string(Convert(source, folder_ / "x.gguf", "f16").message());
  };
  EXPECT_THAT(message(at(name) + 5, "\xff"),
              HasSubstr("gate_proj.weight' has a code 3 among rows 0 to 127"));
  for (const char* scale : {"\x80\x7f", "\xc0\x7f", "\x80\xbf"}) {  // infinity, NaN, -1
    EXPECT_THAT(message(at(name + "_scale"), scale), HasSubstr("expected a number above 0"));
  }
  EXPECT_THAT(message(at(name + "_scale"), std::string(2, '\0')), HasSubstr("has the scale 0"));
}

// A model that was not trained so: llama2 of tests/data, widened so that whole blocks fit its rows.
MadeCheckpoint WideLlama() {
  MadeCheckpoint made("llama2");
  made.config["hidden_size"] = 256;
  made.config["intermediate_size"] = 256;
  for (MadeTensor& tensor : made.tensors) {
    for (int64_t& size : tensor.shape) size = size == 64 || size == 96 ? 256 : size;
  }
  return made;
}

TEST_F(TernaryTest, RefusesWeightsThatAreNotTernaryUnlessForced) {
  const std::string source = WideLlama().Write(folder_);
  for (const char* outtype : {"tq1_0", "tq2_0"}) {
    const absl::Status refused = Convert(source, folder_ / "x.gguf", outtype);
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(refused.message()), HasSubstr("is not ternary"));
    EXPECT_THAT(std::string(refused.message()), HasSubstr("its cosine to the weights is 0."));
    const std::string forced = folder_ / absl::StrCat(outtype, ".gguf");
    EXPECT_EQ(Convert(source, forced, outtype, /*force=*/true), absl::OkStatus());
    const auto reader = OpenGguf(forced);
    const std::vector<float> values = ReadValues(*reader, "blk.0.ffn_up.weight");
    const float size = std::fabs(
        *std::find_if(values.begin(), values.end(), [](float value) { return value != 0.0f; }));
    for (const float value : values) ASSERT_TRUE(value == 0.0f || std::fabs(value) == size);
  }
  EXPECT_THAT(std::string(Convert(source, folder_ / "x.gguf", "i2_s", true).message()),
              HasSubstr("tq2_0 holds ternary weights everywhere"));
}

// Zeros of TQ weights, codes that differ from `codes`, and the cosine to them.
struct Loss {
  double zeros = 0.0, cosine = 0.0;
  int64_t changed = 0;
};

Loss QuantizeTernary(DType dtype, const std::vector<float>& weights,
                     const std::vector<int8_t>& codes) {
  std::vector<std::byte> bytes(*RowBytes(dtype, static_cast<int64_t>(weights.size())));
  EXPECT_EQ(EncodeRows(dtype, weights, static_cast<int64_t>(weights.size()), {}, bytes.data()),
            absl::OkStatus());
  std::vector<float> values(weights.size());
  EXPECT_EQ(DecodeRow(dtype, bytes.data(), absl::MakeSpan(values)), absl::OkStatus());
  Loss loss;
  double dot = 0.0, squares = 0.0, code_squares = 0.0;
  for (size_t i = 0; i < values.size(); ++i) {
    const int code = values[i] > 0.0f ? 1 : values[i] < 0.0f ? -1 : 0;
    loss.changed += code != codes[i];
    loss.zeros += code == 0;
    dot += double{values[i]} * codes[i];
    squares += double{values[i]} * values[i];
    code_squares += codes[i] * codes[i];
  }
  loss.zeros /= static_cast<double>(values.size());
  loss.cosine = dot / std::sqrt(squares * code_squares);
  return loss;
}

// The table of converter/README.md: a step in f16 changes the scale and no weight, since what TQ
// looks for is the largest of a block, and all weights that are not zero are; quantizing the
// weights that training keeps instead takes a block's outlier for its scale.
TEST(SecondQuantizationTest, AFloat16StepChangesNoWeightAndRawWeightsAreLost) {
  constexpr size_t kWeights = 1 << 20;
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> raw(kWeights);
  double sum = 0.0;
  for (float& w : raw) sum += std::fabs(w = normal(random));
  const float scale = static_cast<float>(sum / kWeights);
  std::vector<int8_t> codes(kWeights);
  std::vector<float> f32(kWeights), f16(kWeights), bf16(kWeights);
  for (size_t i = 0; i < kWeights; ++i) {
    codes[i] = static_cast<int8_t>(std::clamp(std::nearbyint(raw[i] / scale), -1.0f, 1.0f));
    f32[i] = static_cast<float>(codes[i]) * scale;
    f16[i] = F16ToF32(F32ToF16(f32[i]));
    bf16[i] = BF16ToF32(F32ToBF16(f32[i]));
  }
  EXPECT_NEAR(static_cast<double>(std::count(codes.begin(), codes.end(), 0)) / kWeights, 0.31,
              0.01);
  for (const DType dtype : {DType::kTQ1_0, DType::kTQ2_0}) {
    for (const std::vector<float>* weights : {&f32, &f16, &bf16}) {
      const Loss loss = QuantizeTernary(dtype, *weights, codes);
      EXPECT_EQ(loss.changed, 0);
      EXPECT_NEAR(loss.zeros, 0.31, 0.01);
      EXPECT_NEAR(loss.cosine, 1.0, 1e-6);
    }
    const Loss lost = QuantizeTernary(dtype, raw, codes);
    EXPECT_NEAR(lost.zeros, 0.86, 0.01);
    EXPECT_NEAR(lost.cosine, 0.44, 0.01);
    RecordProperty(std::string(Info(dtype).name),
                   absl::StrFormat("%.4f zeros, cosine %.4f, %d changed", lost.zeros, lost.cosine,
                                   lost.changed));
  }
}

}  // namespace
}  // namespace odmoe
