// A whole model, base and experts, in every weight format: its logits must be those of the same
// weights decoded to floats.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "converter/convert.h"
#include "converter/quantize/encode.h"
#include "converter/toy/toy_model.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/tensor/convert.h"
#include "services/inference/model/transformer.h"
#include "tests/support/controlled_expert_store.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

// Of a made model, the matrices that take whole blocks of `dtype`; `stored` keeps them in it, else
// as the floats they decode to. Only the first few rows of a matrix are encoded, and repeated over
// it: encoders search, and a repeated row is as good here as one of its own.
void WriteInFormat(const GgufReader& toy, DType dtype, bool stored, const std::string& path) {
  constexpr int64_t kRows = 13;
  GgufHeader header{.metadata = toy.metadata(), .tensors = toy.tensors()};
  const auto takes = [dtype](const GgufTensor& tensor) {
    return tensor.rows() > 1 && tensor.columns() % Info(dtype).block_elements == 0;
  };
  for (GgufTensor& tensor : header.tensors) {
    if (stored && takes(tensor)) tensor.dtype = dtype;
  }
  auto file = *PosixFileSystem().OpenForWrite(path);
  auto writer = *GgufWriter::Create(*file, std::move(header));
  size_t encoded = 0;
  for (const GgufTensor& tensor : toy.tensors()) {
    std::vector<float> values(tensor.bytes / sizeof(float));
    const auto bytes = absl::MakeSpan(reinterpret_cast<std::byte*>(values.data()), tensor.bytes);
    ASSERT_TRUE(toy.ReadTensor(tensor, 0, bytes).ok());
    if (!takes(tensor)) {
      ASSERT_TRUE(writer->Append(bytes).ok());
      continue;
    }
    ++encoded;
    const int64_t columns = tensor.columns();
    const uint64_t row_bytes = *RowBytes(dtype, columns);
    std::vector<std::byte> rows(kRows * row_bytes);
    values.resize(kRows * columns);
    ASSERT_TRUE(EncodeRows(dtype, values, columns, {}, rows.data()).ok());
    for (int64_t r = 0; r < tensor.rows(); ++r) {
      const std::byte* row = rows.data() + r % kRows * row_bytes;
      std::vector<float> decoded(columns);
      ASSERT_TRUE(DecodeRow(dtype, row, absl::MakeSpan(decoded)).ok());
      const auto as_floats = absl::MakeConstSpan(reinterpret_cast<std::byte*>(decoded.data()),
                                                 columns * sizeof(float));
      ASSERT_TRUE(writer->Append(stored ? absl::MakeConstSpan(row, row_bytes) : as_floats).ok());
    }
  }
  ASSERT_GT(encoded, 10u);
  ASSERT_TRUE(writer->Finish().ok() && file->Close().ok());
}

std::vector<float> LogitsOf(const std::string& gguf, const std::string& directory) {
  const auto plan = PlanConversion({gguf, directory});
  EXPECT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(RunConversion(*plan, nullptr, [](const ConvertProgress&) {}).ok());
  const auto base = BaseModel::Open(directory);
  EXPECT_TRUE(base.ok()) << base.status();
  const auto config = ReadModelConfig((*base)->metadata());
  ControlledExpertStore store(directory);
  const auto weights = FindModelWeights(*config, **base, store.catalog());
  EXPECT_TRUE(weights.ok()) << weights.status();
  if (!weights.ok()) return {};
  ComputePool pool(2);
  Transformer transformer(*config, *weights, store, pool, 8);
  const std::vector<TokenId> tokens = {72, 101, 108, 108, 111};
  KvCache cache(*config);
  ExpertUse use;
  Step step;
  step.tokens = tokens;
  step.cache = &cache;
  step.use = &use;
  const absl::Status status = transformer.Forward(step);
  EXPECT_TRUE(status.ok()) << status;
  std::vector<float> logits(tokens.size() * config->vocabulary);
  transformer.Logits(0, static_cast<int64_t>(tokens.size()), logits.data());
  return logits;
}

class EveryFormatTest : public testing::TestWithParam<DType> {};

TEST_P(EveryFormatTest, RunsOnItsBlocks) {
  const TemporaryDirectory folder;
  ToyOptions options;
  options.dim = options.ffn_dim = 256;
  ASSERT_TRUE(WriteToyModel(options, folder / "toy.gguf").ok());
  const auto toy = GgufReader::Open(*PosixFileSystem().OpenForRead(folder / "toy.gguf"));
  ASSERT_TRUE(toy.ok()) << toy.status();
  WriteInFormat(**toy, GetParam(), true, folder / "stored.gguf");
  WriteInFormat(**toy, GetParam(), false, folder / "decoded.gguf");
  if (HasFatalFailure()) return;
  const std::vector<float> logits = LogitsOf(folder / "stored.gguf", folder / "stored");
  const std::vector<float> expected = LogitsOf(folder / "decoded.gguf", folder / "decoded");
  ASSERT_EQ(logits.size(), expected.size());
  float largest = 0.0f;
  float worst = 0.0f;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    worst = std::max(worst, std::abs(logits[i] - expected[i]));
  }
  EXPECT_GT(largest, 0.0f);
  EXPECT_LT(worst, 1e-4f * largest);
}

INSTANTIATE_TEST_SUITE_P(
    EachFormat, EveryFormatTest,
    testing::Values(DType::kF16, DType::kBF16, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
                    DType::kQ5_1, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K,
                    DType::kQ6_K, DType::kIQ4_NL, DType::kMXFP4, DType::kTQ1_0, DType::kTQ2_0),
    [](const auto& info) { return std::string(Info(info.param).name); });

}  // namespace
}  // namespace odmoe
