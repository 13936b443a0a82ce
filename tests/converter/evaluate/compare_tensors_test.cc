#include "converter/evaluate/compare_tensors.h"

#include <cmath>
#include <string>
#include <vector>

#include "converter/evaluate/plot_svg.h"
#include "converter/quantize/quantize_source.h"
#include "converter/toy/toy_model.h"
#include "services/core/tensor/convert.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CompareTensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    Write("base.gguf", {});
    Write("quantized.gguf", {.outtype = OutType::kQ8_0});
  }
  void Write(const std::string& name, const ToyOptions& options) {
    ASSERT_TRUE(WriteToyModel(options, folder_ / name).ok());
  }
  absl::StatusOr<TensorReport> Compare(const std::string& model, const std::string& base,
                                       int threads = 2) {
    return CompareTensors({folder_ / model, folder_ / base, threads}, nullptr, nullptr);
  }
  std::vector<float> Values(const std::string& model, const std::string& name) {
    const auto file = *GgufModel::Open(PosixFileSystem(), folder_ / model);
    const GgufTensor& tensor = *file->Find(name);
    std::vector<std::byte> bytes(tensor.bytes);
    EXPECT_TRUE(file->ReadTensor(tensor, 0, absl::MakeSpan(bytes)).ok());
    std::vector<float> values(tensor.rows() * tensor.columns());
    const uint64_t row_bytes = tensor.bytes / tensor.rows();
    for (int64_t r = 0; r < tensor.rows(); ++r) {
      EXPECT_TRUE(DecodeRow(tensor.dtype, bytes.data() + r * row_bytes,
                            absl::MakeSpan(values).subspan(r * tensor.columns(), tensor.columns()))
                      .ok());
    }
    return values;
  }

  TemporaryDirectory folder_;
};

TEST_F(CompareTensorsTest, AgreesWithPlainArithmetic) {
  const auto report = Compare("quantized.gguf", "base.gguf");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->only_in_base, IsEmpty());
  const std::string name = "blk.1.ffn_down_exps.weight";
  const TensorError* found = nullptr;
  for (const TensorError& tensor : report->tensors) {
    if (tensor.name == name) found = &tensor;
  }
  ASSERT_NE(found, nullptr);
  const std::vector<float> base = Values("base.gguf", name);
  const std::vector<float> quantized = Values("quantized.gguf", name);
  double error = 0.0, square = 0.0, other = 0.0, product = 0.0, largest = 0.0, worst = 0.0;
  size_t worst_at = 0;
  for (size_t begin = 0; begin < base.size(); begin += 32) {
    double block = 0.0;
    for (size_t i = begin; i < begin + 32; ++i) {
      const double d = static_cast<double>(quantized[i]) - base[i];
      block += d * d;
      largest = std::max(largest, std::abs(d));
      square += static_cast<double>(base[i]) * base[i];
      other += static_cast<double>(quantized[i]) * quantized[i];
      product += static_cast<double>(base[i]) * quantized[i];
    }
    error += block;
    if (block > worst) {
      worst = block;
      worst_at = begin;
    }
  }
  EXPECT_EQ(found->elements, static_cast<int64_t>(base.size()));
  EXPECT_EQ(found->layer, 1);
  EXPECT_EQ(found->dtype, DType::kQ8_0);
  EXPECT_EQ(found->base_dtype, DType::kF32);
  EXPECT_NEAR(found->rmse, std::sqrt(error / base.size()), 1e-12);
  EXPECT_GT(found->rmse, 0.0);
  EXPECT_NEAR(found->relative, std::sqrt(error / square), 1e-9);
  EXPECT_EQ(found->max_error, largest);
  EXPECT_NEAR(found->cosine, product / std::sqrt(square * other), 1e-9);
  // 64 rows of 128 columns an expert.
  EXPECT_EQ(found->worst.matrix, static_cast<int64_t>(worst_at / (64 * 128)));
  EXPECT_EQ(found->worst.row, static_cast<int64_t>(worst_at / 128 % 64));
  EXPECT_EQ(found->worst.column, static_cast<int64_t>(worst_at % 128));
  EXPECT_NEAR(found->worst.rmse, std::sqrt(worst / 32.0), 1e-12);
  EXPECT_EQ(found->worst.base,
            std::vector<float>(base.begin() + worst_at, base.begin() + worst_at + 32));
  EXPECT_EQ(found->worst.values,
            std::vector<float>(quantized.begin() + worst_at, quantized.begin() + worst_at + 32));
}

TEST_F(CompareTensorsTest, LayersAreSortedByTheirError) {
  const auto report = Compare("quantized.gguf", "base.gguf");
  ASSERT_TRUE(report.ok()) << report.status();
  // Two layers, and what belongs to none.
  ASSERT_EQ(report->layers.size(), 3u);
  for (size_t i = 1; i < report->layers.size(); ++i) {
    EXPECT_GE(report->layers[i - 1].relative, report->layers[i].relative);
  }
  int64_t elements = 0;
  for (const LayerError& layer : report->layers) elements += layer.elements;
  for (const TensorError& tensor : report->tensors) elements -= tensor.elements;
  EXPECT_EQ(elements, 0);
  const std::string svg = PlotSvg({.title = "toy", .tensors = &*report});
  EXPECT_THAT(svg, HasSubstr("blk.1.ffn_down_exps.weight q8_0"));
  EXPECT_THAT(svg, HasSubstr("tensors without error"));  // norms and routers stay f32
}

TEST_F(CompareTensorsTest, EqualTensorsHaveNoErrorAndThreadsDoNotMatter) {
  const auto same = Compare("base.gguf", "base.gguf");
  ASSERT_TRUE(same.ok()) << same.status();
  for (const TensorError& tensor : same->tensors) {
    EXPECT_EQ(tensor.relative, 0.0);
    EXPECT_NEAR(tensor.cosine, 1.0, 1e-12);
  }
  const auto one = Compare("quantized.gguf", "base.gguf", 1);
  const auto many = Compare("quantized.gguf", "base.gguf", 7);
  ASSERT_EQ(one->tensors.size(), many->tensors.size());
  for (size_t i = 0; i < one->tensors.size(); ++i) {
    EXPECT_EQ(one->tensors[i].error_square, many->tensors[i].error_square);
    EXPECT_EQ(one->tensors[i].worst.row, many->tensors[i].worst.row);
  }
}

TEST_F(CompareTensorsTest, AModelDirectoryIsReadAsTheFileItCameFrom) {
  const auto plan = PlanConversion({folder_ / "quantized.gguf", folder_ / "quantized"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_TRUE(RunConversion(*plan, nullptr, [](const ConvertProgress&) {}).ok());
  const auto source = QuantizeSource::Open(PosixFileSystem(), folder_ / "quantized");
  ASSERT_TRUE(source.ok()) << source.status();
  const std::string bytes = ReadFileOrDie(folder_ / "quantized.gguf");
  const RandomAccessFile& file = (*source)->model().shards()[0]->file();
  ASSERT_EQ(file.size(), bytes.size());
  // In reads that straddle whatever there is.
  std::string read(bytes.size(), 'x');
  for (size_t at = 0; at < bytes.size(); at += 977) {
    const size_t length = std::min<size_t>(977, bytes.size() - at);
    ASSERT_TRUE(file.ReadAt(at, absl::MakeSpan(reinterpret_cast<std::byte*>(read.data() + at),
                                               length)).ok());
  }
  EXPECT_TRUE(read == bytes);
  std::byte past;
  EXPECT_EQ(file.ReadAt(bytes.size(), absl::MakeSpan(&past, 1)).code(),
            absl::StatusCode::kOutOfRange);

  const auto of_directory = Compare("quantized", "base.gguf");
  const auto of_file = Compare("quantized.gguf", "base.gguf");
  ASSERT_TRUE(of_directory.ok()) << of_directory.status();
  ASSERT_EQ(of_directory->tensors.size(), of_file->tensors.size());
  for (size_t i = 0; i < of_file->tensors.size(); ++i) {
    EXPECT_EQ(of_directory->tensors[i].name, of_file->tensors[i].name);
    EXPECT_EQ(of_directory->tensors[i].error_square, of_file->tensors[i].error_square);
  }
}

TEST_F(CompareTensorsTest, TellsTensorsThatAreMissingOrOfAnotherShape) {
  Write("deeper.gguf", {.layers = 3});
  const auto report = Compare("base.gguf", "deeper.gguf");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->only_in_base, Contains("blk.2.ffn_down_exps.weight"));
  EXPECT_THAT(report->only_in_model, IsEmpty());
  Write("wider.gguf", {.dim = 128});
  const absl::Status status = Compare("base.gguf", "wider.gguf").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor token_embd.weight is ["));
  EXPECT_EQ(Compare("nothing", "base.gguf").status().code(), absl::StatusCode::kNotFound);
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_EQ(CompareTensors({folder_ / "base.gguf", folder_ / "base.gguf"}, &cancellation, nullptr)
                .status().code(),
            absl::StatusCode::kCancelled);
}

TEST_F(CompareTensorsTest, NamesATensorWithAWeightThatIsNoNumber) {
  std::string bytes = ReadFileOrDie(folder_ / "base.gguf");
  const auto base = *GgufModel::Open(PosixFileSystem(), folder_ / "base.gguf");
  const GgufTensor& tensor = *base->Find("blk.1.ffn_up_exps.weight");
  const uint32_t nan = 0x7fc00000;
  bytes.replace(base->PlaceOf(tensor).offset + 20, sizeof(nan),
                reinterpret_cast<const char*>(&nan), sizeof(nan));
  WriteFileOrDie(folder_ / "broken.gguf", bytes);
  const absl::Status status = Compare("broken.gguf", "base.gguf").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("blk.1.ffn_up_exps.weight: weight 5 is nan"));
}

}  // namespace
}  // namespace odmoe
