// Tilings of BitNet's kernels, weights in them, and the header that reads those.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "converter/bitnet/kernel_header.h"
#include "converter/bitnet/kernel_shape.h"
#include "converter/bitnet/plan_ternary.h"
#include "converter/bitnet/ternary_report.h"
#include "converter/bitnet/tiles.h"
#include "converter/convert.h"
#include "services/core/formats/gguf_reader.h"
#include "tests/support/bitnet_checkpoint.h"
#include "tests/support/subprocess.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const nlohmann::json k2B4T = {{"hidden_size", 2560},
                              {"intermediate_size", 6912},
                              {"num_attention_heads", 20},
                              {"num_key_value_heads", 5}};

TEST(KernelShapeTest, TilesTheShapesOf2B4T) {
  const auto tl2 = ChooseKernelConfig(DType::kTL2, k2B4T, "config.json");
  ASSERT_TRUE(tl2.ok()) << tl2.status();
  EXPECT_THAT(
      tl2->shapes,
      ElementsAre(KernelShape{2560, 2560, 320, 192, 32}, KernelShape{640, 2560, 320, 192, 32},
                  KernelShape{6912, 2560, 256, 192, 32}, KernelShape{2560, 6912, 320, 192, 32}));
  const auto tl1 = ChooseKernelConfig(DType::kTL1, k2B4T, "config.json");
  ASSERT_TRUE(tl1.ok()) << tl1.status();
  EXPECT_THAT(
      tl1->shapes,
      ElementsAre(KernelShape{2560, 2560, 320, 128, 64}, KernelShape{640, 2560, 320, 128, 64},
                  KernelShape{6912, 2560, 256, 128, 64}, KernelShape{2560, 6912, 320, 128, 64}));
  EXPECT_NE(KernelHash(*tl1), KernelHash(*tl2));
}

TEST(KernelShapeTest, SaysWhichRuleAShapeBreaks) {
  const struct {
    DType dtype;
    int64_t rows, columns;
    const char* message;
  } cases[] = {{DType::kTL2, 100, 2560, "m % 32 is 4, expected 0"},
               {DType::kTL2, 320, 2570, "k % bk is 74 (bk 192), expected a multiple of 32"},
               {DType::kTL2, 320, 256, "more than 256 columns"},
               {DType::kTL2, 0, 256, "it is empty"},
               {DType::kTL1, 33, 64, "m % 32 is 1"},
               {DType::kTL1, 32, 100, "k % 32 is 4, expected 0"}};
  for (const auto& c : cases) {
    const auto shape = ChooseKernelShape(c.dtype, c.rows, c.columns);
    EXPECT_THAT(std::string(shape.status().message()), HasSubstr(c.message));
  }
  EXPECT_FALSE(ChooseKernelConfig(DType::kTL2, {{"hidden_size", 2560}}, "c").ok());
}

TEST(KernelIniTest, ReadsWhatItWritesAndTheRuntimesOwn) {
  const auto config = ChooseKernelConfig(DType::kTL2, k2B4T, "config.json");
  const auto back = ParseKernelIni(DType::kTL2, EncodeKernelIni(*config), "kernel_config.ini");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->shapes, config->shapes);
  // As published for the 3B model.
  const auto preset = ParseKernelIni(
      DType::kTL2, "[Kernels_0]\nm = 3200\nk = 8640\nBM = 160\nbk = 96\nbmm = 32\n\n",
      "preset.ini");
  ASSERT_TRUE(preset.ok()) << preset.status();
  EXPECT_THAT(preset->shapes, ElementsAre(KernelShape{3200, 8640, 160, 96, 32}));

  const std::string good = "m=64\nk=384\nbm=32\nbk=96\nbmm=32\n";
  const std::pair<std::string, const char*> bad[] = {
      {"", "no kernels"},
      {good, "neither a section"},
      {"[a]\n" + good + "m=64\n", "there twice"},
      {"[a]\nm=64\n", "0 is no size"},
      {"[a]\nm=-64\n", "does not set a size"},
      {"[a]\nm=99999999999999999999\n", "does not set a size"},
      {"[a]\nq=1\n", "no setting of a kernel"},
      {"[a]\n" + good + "[b]\n" + good, "two kernels"},
      {"[a]\nm=64\nk=384\nbm=48\nbk=96\nbmm=32\n", "m % bm is 16"},
      {"[a]\nm=64\nk=384\nbm=32\nbk=100\nbmm=32\n", "multiple of 24"},
      {"[a]\nm=64\nk=384\nbm=32\nbk=96\nbmm=64\n", "bm % bmm is 32"}};
  for (const auto& [text, message] : bad) {
    EXPECT_THAT(std::string(ParseKernelIni(DType::kTL2, text, "x.ini").status().message()),
                HasSubstr(message));
  }
  std::string many;
  for (int i = 0; i < 70; ++i) absl::StrAppend(&many, "[a]\n");
  EXPECT_FALSE(ParseKernelIni(DType::kTL2, many, "x.ini").ok());
}

std::vector<int8_t> MadeCodes(int64_t count) {
  std::vector<int8_t> codes;
  uint32_t state = 5;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    codes.push_back(static_cast<int8_t>((state >> 8) % 3) - 1);
  }
  return codes;
}

TEST(TilesTest, GiveBackEveryWeight) {
  const std::pair<DType, KernelShape> cases[] = {
      {DType::kTL1, {64, 128, 32, 64, 32}},     {DType::kTL1, {128, 256, 64, 128, 64}},
      {DType::kTL1, {320, 96, 160, 32, 32}},    {DType::kTL2, {64, 384, 32, 96, 32}},
      {DType::kTL2, {320, 2560, 320, 192, 32}}, {DType::kTL2, {64, 416, 64, 96, 32}},
      {DType::kTL2, {32, 448, 32, 192, 32}}};
  for (const auto& [dtype, shape] : cases) {
    const std::vector<int8_t> codes = MadeCodes(shape.rows * shape.columns);
    auto tiles = EncodeTiles(dtype, shape, codes);
    ASSERT_TRUE(tiles.ok()) << tiles.status();
    EXPECT_EQ(tiles->size(), *TensorBytes(dtype, shape.columns, shape.rows));
    const auto back = DecodeTiles(dtype, shape, *tiles);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_TRUE(*back == codes) << Info(dtype).name << " " << shape.rows << " " << shape.columns;
    (*tiles)[3] = std::byte{0xff};
    EXPECT_EQ(DecodeTiles(dtype, shape, *tiles).status().code(), absl::StatusCode::kDataLoss);
    tiles->pop_back();
    EXPECT_FALSE(DecodeTiles(dtype, shape, *tiles).ok());
    EXPECT_FALSE(EncodeTiles(dtype, shape, absl::MakeConstSpan(codes).subspan(1)).ok());
  }
}

// One weight that is not 0, and where bitnet.cpp's converter puts it (its arithmetic, by hand).
TEST(TilesTest, PlaceAWeightWhereTheRuntimeLooksForIt) {
  const KernelShape tl1 = {64, 64, 32, 32, 32};
  std::vector<int8_t> codes(64 * 64, 0);
  codes[33 * 64 + 37] =
      1;  // block row 1, block 1; group column 0, lanes 0, second four; first pair
  auto tiles = *EncodeTiles(DType::kTL1, tl1, codes);
  for (size_t i = 0; i < tiles.size(); ++i) {
    const bool here = i == 512 + 256 + 16 + 1;
    EXPECT_EQ(tiles[i], here ? std::byte{0x54} : std::byte{0x44}) << i;
  }
  const KernelShape tl2 = {32, 288, 32, 96, 32};
  codes.assign(32 * 288, 0);
  codes[9 * 288 + 96 + 25] = -1;  // block 1, triple 8: -3, its sign the first of the second vector
  tiles = *EncodeTiles(DType::kTL2, tl2, codes);
  for (size_t i = 0; i < tiles.size(); ++i) {
    const size_t nibbles = 32 * 288 / 6, signs_of_block = 32 * 96 / 24;
    const bool index = i == 512 + 4 * 32 + 17;
    const bool sign = i == nibbles + signs_of_block + 32 + 2 * 9 + 1;
    EXPECT_EQ(tiles[i], index ? std::byte{0x30} : sign ? std::byte{0x80} : std::byte{0}) << i;
  }
}

class TiledExportTest : public testing::Test {
 protected:
  absl::Status Convert(const std::string& outtype, const std::string& kernels,
                       const std::string& destination) {
    const auto plan = PlanConversion({.source = source_,
                                      .destination = destination,
                                      .outtype = outtype,
                                      .kernel_config = kernels});
    if (!plan.ok()) return plan.status();
    return RunConversion(*plan, nullptr, [](const ConvertProgress&) {});
  }
  void SetUp() override { WriteBitnetCheckpoint({}, source_); }

  const TemporaryDirectory folder_;
  const std::string source_ = folder_ / "checkpoint";
};

// tl1: all of the made model's shapes fit. It names its kernels and lies as they read it.
TEST_F(TiledExportTest, BindsTheFileToItsKernels) {
  const auto kernels = ChooseKernelConfig(DType::kTL1, BitnetReference()["config"], "config.json");
  ASSERT_TRUE(kernels.ok()) << kernels.status();
  WriteFileOrDie(folder_ / "k.ini", EncodeKernelIni(*kernels));
  const std::string path = folder_ / "out.gguf";
  ASSERT_EQ(Convert("tl1", folder_ / "k.ini", path), absl::OkStatus());
  const auto reader = *GgufReader::Open(*PosixFileSystem().OpenForRead(path));
  EXPECT_EQ(*reader->metadata().GetString(kKernelHashKey), KernelHash(*kernels));
  const GgufTensor* q = reader->Find("blk.0.attn_q.weight");
  EXPECT_EQ(q->dtype, DType::kTL1);
  EXPECT_EQ(reader->Find("blk.0.attn_q.weight_scale")->offset, q->offset + q->bytes);
  const auto report = ReportTernary(PosixFileSystem(), source_);
  EXPECT_TRUE(VerifyTernaryFile(PosixFileSystem(), path, *report, &*kernels).ok());
  EXPECT_FALSE(VerifyTernaryFile(PosixFileSystem(), path, *report, nullptr).ok());
}

TEST_F(TiledExportTest, RefusesWhatNoKernelsAreFor) {
  EXPECT_THAT(std::string(Convert("tl2", "", folder_ / "x.gguf").message()),
              HasSubstr("name it with --kernels"));
  WriteFileOrDie(folder_ / "other.ini", "[a]\nm=64\nk=384\nbm=32\nbk=96\nbmm=32\n");
  EXPECT_THAT(std::string(Convert("tl2", folder_ / "other.ini", folder_ / "x.gguf").message()),
              HasSubstr("there is no tl2 kernel"));
  EXPECT_THAT(std::string(Convert("tq2_0", folder_ / "other.ini", folder_ / "x.gguf").message()),
              HasSubstr("for the outtypes tl1 and tl2"));
  EXPECT_THAT(
      std::string(ChooseKernelConfig(DType::kTL2, BitnetReference()["config"], "config.json")
                      .status()
                      .message()),
      HasSubstr("more than 256 columns"));
}

// A program that multiplies by tiles with the header's functions, as the runtime does, and says by
// how much it is off.
constexpr char kProgram[] = R"(
#include <cstdio>
#include <vector>
#include "bitnet-lut-kernels.h"
constexpr int M = SHAPE_M, K = SHAPE_K, BM = SHAPE_BM, BK = SHAPE_BK;
int main(int, char** argv) {
  std::FILE* file = std::fopen(argv[1], "rb");
  std::vector<unsigned char> tiles(BYTES);
  if (std::fread(tiles.data(), 1, tiles.size(), file) != tiles.size()) return 2;
  std::vector<signed char> codes(M * K);
  if (std::fread(codes.data(), 1, codes.size(), file) != codes.size()) return 2;
  float scale = 0.5f, lut_scale = 0.0f, worst = 0.0f;
  std::vector<float> x(K), out(M);
  for (int i = 0; i < K; ++i) x[i] = (float) (i * 37 % 255 - 127);  // 127 is among them: exact
  std::vector<short> lut(K * 16);
  for (int tile = 0; tile < M / BM; ++tile) {
    float* c = out.data() + tile * BM;
#ifdef GGML_BITNET_X86_TL2
    const int k3 = K / BK * BK, k2 = K - k3;
    short* pairs = lut.data() + k3 / 3 * 16;
    unsigned char* signs = tiles.data() + M * k3 / 6;
    ggml_preprocessor(1, M, k3, k2, x.data(), &lut_scale, lut.data(), pairs);
    ggml_qgemm_lut(1, M, K, k3, tiles.data() + tile * BM * k3 / 6, signs + tile * BM * k3 / 24,
                   lut.data(), &scale, &lut_scale, c);
    ggml_qgemm_lut(1, M, K, k2, signs + M * k3 / 24 + tile * BM * k2 / 4, nullptr, pairs, &scale,
                   &lut_scale, c);
#else
    ggml_preprocessor(M, K, x.data(), &lut_scale, lut.data());
    ggml_qgemm_lut(M, K, tiles.data() + tile * BM * K / 4, lut.data(), &scale, &lut_scale, c);
#endif
  }
  for (int row = 0; row < M; ++row) {
    double sum = 0.0;
    for (int i = 0; i < K; ++i) sum += codes[row * K + i] * (double) x[i];
    worst = std::fmax(worst, (float) std::fabs(out[row] - 0.5 * sum));
  }
  ggml_tensor tensor{{K, M}, GGML_TYPE_TL1, GGML_TYPE_TL2, tiles.data()};
  tensor.type = TYPE;
  static bitnet_tensor_extra extras[1];
  bitnet_tensor_extras = extras;
  ggml_bitnet_transform_tensor(&tensor);
  (void) initialized;
  const bool told = tensor.extra == extras && extras[0].BK == BK && extras[0].n_tile_num == M / BM;
  std::printf("%g %d\n", worst, (int) told);
  return 0;
}
)";

// As much of the runtime's header as the kernels see.
constexpr char kRuntime[] = R"(
#pragma once
#include <cstddef>
#include <cstdint>
typedef float bitnet_float_type;
enum ggml_type { GGML_TYPE_Q4_0 = 2, GGML_TYPE_TL1 = 38, GGML_TYPE_TL2 = 39 };
struct ggml_tensor { int64_t ne[2]; ggml_type unused, type; void * data; void * extra = nullptr; };
struct bitnet_tensor_extra {
    int lut_scales_size; int BK; int n_tile_num; uint8_t * qweights; bitnet_float_type * scales;
};
)";

TEST(KernelHeaderTest, CompilesAndMultiplies) {
  const char* compiler = std::getenv("CXX");
  if (compiler == nullptr) compiler = "/usr/bin/c++";
  if (!std::filesystem::exists(compiler)) GTEST_SKIP() << "no compiler at " << compiler;
  const TemporaryDirectory folder;
  WriteFileOrDie(folder / "ggml-bitnet.h", kRuntime);
  WriteFileOrDie(folder / "main.cc", kProgram);
  const std::pair<DType, KernelShape> cases[] = {{DType::kTL1, {128, 256, 64, 128, 64}},
                                                 {DType::kTL2, {64, 448, 32, 192, 32}},
                                                 {DType::kTL2, {64, 384, 64, 96, 32}}};
  for (const auto& [dtype, shape] : cases) {
    const bool tl1 = dtype == DType::kTL1;
    WriteFileOrDie(folder / "bitnet-lut-kernels.h",
                   MakeKernelHeader({.dtype = dtype, .shapes = {shape}}));
    const std::vector<int8_t> codes = MadeCodes(shape.rows * shape.columns);
    std::vector<std::byte> tiles = *EncodeTiles(dtype, shape, codes);
    const size_t bytes = tiles.size() + 64;  // room for the scale
    tiles.resize(bytes);
    WriteFileOrDie(
        folder / "data",
        absl::StrCat(absl::string_view(reinterpret_cast<const char*>(tiles.data()), bytes),
                     absl::string_view(reinterpret_cast<const char*>(codes.data()), codes.size())));
    const auto compiled = Subprocess::Run(
        {.arguments = {compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror",
                       tl1 ? "-DGGML_BITNET_ARM_TL1" : "-DGGML_BITNET_X86_TL2",
                       tl1 ? "-DTYPE=GGML_TYPE_TL1" : "-DTYPE=GGML_TYPE_TL2",
                       absl::StrCat("-DSHAPE_M=", shape.rows),
                       absl::StrCat("-DSHAPE_K=", shape.columns),
                       absl::StrCat("-DSHAPE_BM=", shape.block_rows),
                       absl::StrCat("-DSHAPE_BK=", shape.block_columns),
                       absl::StrCat("-DBYTES=", bytes), folder / "main.cc", "-o", folder / "run"}});
    ASSERT_TRUE(compiled.ok() && compiled->exit.code == 0) << compiled->err;
    const auto ran = Subprocess::Run({.arguments = {folder / "run", folder / "data"}});
    ASSERT_TRUE(ran.ok());
    EXPECT_EQ(ran->out, "0 1\n") << Info(dtype).name << ran->err;
  }
}

}  // namespace
}  // namespace odmoe
