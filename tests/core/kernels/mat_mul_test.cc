#include "services/core/kernels/mat_mul.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

// A random matrix in a format, with its bytes.
struct StoredMatrix {
  StoredMatrix(DType dtype, int64_t rows, int64_t columns, uint32_t seed) {
    const uint64_t row_bytes = *RowBytes(dtype, columns);
    bytes.resize(rows * row_bytes);
    values.resize(rows * columns);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& v : values) v = normal(random);
    for (int64_t r = 0; r < rows; ++r) {
      const absl::Span<float> row(values.data() + r * columns, columns);
      EXPECT_TRUE(EncodeRow(dtype, row, bytes.data() + r * row_bytes).ok());
      EXPECT_TRUE(DecodeRow(dtype, bytes.data() + r * row_bytes, row).ok());
    }
    matrix = {dtype, rows, columns, row_bytes, bytes.data()};
  }
  std::vector<std::byte> bytes;
  std::vector<float> values;  // as stored
  WeightMatrix matrix;
};

std::vector<float> RandomFloats(size_t n) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

TEST(MatMulTest, MultipliesEveryRowWithEveryToken) {
  ComputePool pool(2);
  const StoredMatrix w(DType::kBF16, 37, 50, 1);
  const std::vector<float> x = RandomFloats(3 * 50);
  Activations activations;
  activations.Set(x.data(), 3, 50, 50);
  std::vector<float> out(3 * 37);
  MatMul(pool, w.matrix, activations, out.data(), 37);
  for (int t = 0; t < 3; ++t) {
    for (int r = 0; r < 37; ++r) {
      double expected = 0.0;
      for (int c = 0; c < 50; ++c) {
        expected += static_cast<double>(w.values[r * 50 + c]) * x[t * 50 + c];
      }
      EXPECT_NEAR(out[t * 37 + r], expected, 1e-4);
    }
  }
}

TEST(MatMulTest, BitsDoNotDependOnThreadsTokensOrCompanions) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    const StoredMatrix w(dtype, 300, 256, 2);
    const StoredMatrix other(DType::kF32, 77, 256, 3);
    const std::vector<float> x = RandomFloats(11 * 256);
    std::vector<float> expected(11 * 300);
    ComputePool one(1);
    for (int t = 0; t < 11; ++t) {
      Activations row;
      row.Set(x.data() + t * 256, 1, 256, 256);
      MatMul(one, w.matrix, row, expected.data() + t * 300, 300);
    }
    for (const int threads : {1, 2, 5}) {
      ComputePool pool(threads);
      Activations rows;
      rows.Set(x.data(), 11, 256, 256);
      std::vector<float> out(11 * 300);
      std::vector<float> other_out(11 * 77);
      const Product products[] = {
          {other.matrix, rows.Rows(ActivationForm::kF32), 11, other_out.data(), 77},
          {w.matrix, rows.Rows(FormFor(dtype)), 11, out.data(), 300}};
      MatMul(pool, products);
      EXPECT_EQ(out, expected) << Info(dtype).name << ", " << threads << " threads";
    }
  }
}

TEST(MatMulTest, ASliceIsItsRows) {
  ComputePool pool(1);
  const StoredMatrix w(DType::kQ8_0, 40, 64, 4);
  const std::vector<float> x = RandomFloats(64);
  Activations activations;
  activations.Set(x.data(), 1, 64, 64);
  std::vector<float> all(40);
  std::vector<float> slice(8);
  MatMul(pool, w.matrix, activations, all.data(), 40);
  MatMul(pool, w.matrix.Slice(24, 8), activations, slice.data(), 8);
  EXPECT_EQ(slice, std::vector<float>(all.begin() + 24, all.begin() + 32));
}

TEST(MatMulTest, AnEmptyProductIsNothing) {
  ComputePool pool(2);
  MatMul(pool, absl::Span<const Product>());
}

TEST(MatMulTest, NamesTheFormatItHasNoKernelFor) {
  EXPECT_TRUE(CheckMultipliable(DType::kQ8_0).ok());
  const absl::Status status = CheckMultipliable(DType::kI32);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find(Info(DType::kI32).name), absl::string_view::npos) << status;
}

TEST(ActivationsTest, QuantizeOnceUntilSetAgain) {
  const std::vector<float> x = RandomFloats(64);
  const std::vector<float> y = RandomFloats(96);
  Activations activations;
  activations.Set(x.data(), 1, 64, 64);
  const std::byte* const* first = activations.Rows(ActivationForm::kQ8);
  const auto* block = reinterpret_cast<const BlockQ8Activation*>(first[0]);
  const float scale = block->d;
  EXPECT_EQ(activations.Rows(ActivationForm::kQ8)[0], first[0]);
  activations.Set(y.data() + 32, 1, 64, 64);
  block = reinterpret_cast<const BlockQ8Activation*>(activations.Rows(ActivationForm::kQ8)[0]);
  EXPECT_NE(block->d, scale);
}

TEST(ActivationsTest, StridedRowsAreTheRowsAsked) {
  const std::vector<float> x = RandomFloats(100);
  Activations activations;
  activations.Set(x.data() + 3, 4, 10, 20);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(reinterpret_cast<const float*>(activations.Rows(ActivationForm::kF32)[i]),
              x.data() + 3 + i * 20);
  }
}

}  // namespace
}  // namespace odmoe
