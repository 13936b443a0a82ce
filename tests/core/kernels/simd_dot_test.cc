#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/tensor/convert.h"
#include "services/core/tensor/dtype.h"
#include "services/core/kernels/simd.h"
#include "tests/core/kernels/each_target.h"

namespace odmoe {
namespace {

constexpr DType kFormats[] = {
    DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0, DType::kQ4_0,   DType::kQ4_1,
    DType::kQ5_0, DType::kQ5_1, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,   DType::kQ5_K,
    DType::kQ6_K, DType::kQ1_0, DType::kQ2_0, DType::kMXFP4, DType::kIQ4_NL,
    DType::kIQ4_XS, DType::kTQ1_0, DType::kTQ2_0};
constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

std::vector<float> RandomFloats(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

// A row of any format. Plain numbers are drawn from a normal distribution; blocks are random bytes,
// so that every code and scale comes up, but for those whose values are none or so large that a
// float sum could overflow.
void FillRow(DType dtype, int64_t columns, std::byte* row) {
  const DTypeInfo& info = Info(dtype);
  if (info.block_elements == 1) {
    EXPECT_TRUE(EncodeRow(dtype, RandomFloats(columns, 7), row).ok());
    return;
  }
  std::mt19937 random(7);
  std::vector<float> values(info.block_elements);
  const auto is_fit = [](float v) { return std::abs(v) < 1e6f; };
  for (int64_t i = 0; i < columns; i += info.block_elements, row += info.block_bytes) {
    do {
      for (uint32_t k = 0; k < info.block_bytes; ++k) row[k] = static_cast<std::byte>(random());
      EXPECT_TRUE(DecodeRow(dtype, row, absl::MakeSpan(values)).ok());
    } while (!std::all_of(values.begin(), values.end(), is_fit));
  }
}

// Bytes that end where the heap block ends, so that a read past them is caught, and start
// `misalignment` bytes past an aligned address.
class TightBytes {
 public:
  TightBytes(size_t size, size_t misalignment) : block_(size + misalignment), at_(misalignment) {}
  std::byte* data() { return block_.data() + at_; }

 private:
  std::vector<std::byte> block_;
  size_t at_;
};

// One row of weights and some tokens, with what their products must be.
struct Case {
  Case(DType dtype, int64_t columns, int64_t tokens, size_t misalignment, const SimdKernels& simd)
      : columns(columns),
        tokens(tokens),
        kernel(simd.find_dot(dtype)),
        row(*RowBytes(dtype, columns), misalignment) {
    FillRow(dtype, columns, row.data());
    weights.resize(columns);
    EXPECT_TRUE(DecodeRow(dtype, row.data(), absl::MakeSpan(weights)).ok());
    for (int64_t t = 0; t < tokens; ++t) AddToken(simd, misalignment);
  }

  void AddToken(const SimdKernels& simd, size_t misalignment) {
    std::vector<float> x = RandomFloats(columns, 100 + static_cast<uint32_t>(x_bytes.size()));
    if (kernel.form == ActivationForm::kQ8) {
      std::vector<BlockQ8Activation> blocks(columns / BlockQ8Activation::kElements);
      simd.quantize_q8(x.data(), columns, blocks.data());
      for (int64_t i = 0; i < columns; ++i) {
        const BlockQ8Activation& block = blocks[i / BlockQ8Activation::kElements];
        x[i] = block.d * block.q[i % BlockQ8Activation::kElements];
      }
      x_bytes.emplace_back(blocks.size() * sizeof(BlockQ8Activation), 0);
      if (columns > 0) {
        std::memcpy(x_bytes.back().data(), blocks.data(), blocks.size() * sizeof(blocks[0]));
      }
    } else {
      x_bytes.emplace_back(columns * sizeof(float), misalignment);
      if (columns > 0) std::memcpy(x_bytes.back().data(), x.data(), columns * sizeof(float));
    }
    double sum = 0.0;
    double magnitude = 0.0;
    for (int64_t i = 0; i < columns; ++i) {
      sum += static_cast<double>(weights[i]) * x[i];
      magnitude += std::abs(static_cast<double>(weights[i]) * x[i]);
    }
    expected.push_back(sum);
    // Each of n terms is rounded at most n + 3 times: once as a product, then as part of a sum.
    tolerance.push_back((static_cast<double>(columns) + 3.0) * kEpsilon * magnitude);
  }

  std::vector<float> Compute() {
    std::vector<const std::byte*> x;
    for (TightBytes& bytes : x_bytes) x.push_back(bytes.data());
    std::vector<float> out(tokens, std::nanf(""));
    kernel.dot(row.data(), columns, x.data(), tokens, out.data(), 1);
    return out;
  }

  int64_t columns;
  int64_t tokens;
  DotKernel kernel;
  TightBytes row;
  std::vector<float> weights;
  std::vector<TightBytes> x_bytes;
  std::vector<double> expected;
  std::vector<double> tolerance;
};

std::vector<int64_t> Lengths(DType dtype) {
  std::vector<int64_t> lengths;
  if (const int64_t block = Info(dtype).block_elements; block > 1) {
    for (int64_t n = 0; n <= std::max<int64_t>(8 * 32, 2 * block + 32); n += block) {
      lengths.push_back(n);
    }
    return lengths;
  }
  // The widest vector has 16 lanes and a round takes four of them.
  for (int64_t n = 0; n <= 2 * 64; ++n) lengths.push_back(n);
  return lengths;
}

TEST(SimdDotTest, AgreesWithDoubleAtEveryLengthAndMisalignment) {
  ForEachTarget([](const SimdKernels& simd) {
    for (const DType dtype : kFormats) {
      for (const int64_t columns : Lengths(dtype)) {
        for (const size_t misalignment : {0, 2, 6}) {
          // Activations are floats of our own: aligned as floats are.
          Case c(dtype, columns, 1, misalignment, simd);
          const std::vector<float> out = c.Compute();
          EXPECT_NEAR(out[0], c.expected[0], c.tolerance[0])
              << Info(dtype).name << " columns " << columns << " misaligned by " << misalignment;
        }
      }
    }
  });
}

TEST(SimdDotTest, TokensTogetherGiveTheBitsOfTokensAlone) {
  ForEachTarget([](const SimdKernels& simd) {
    for (const DType dtype : kFormats) {
      for (const int64_t blocks : {1, 3, 13}) {
        const int64_t columns = blocks * std::max<int64_t>(32, Info(dtype).block_elements);
        for (int64_t tokens = 1; tokens <= 9; ++tokens) {
          Case c(dtype, columns, tokens, 0, simd);
          const std::vector<float> together = c.Compute();
          for (int64_t t = 0; t < tokens; ++t) {
            EXPECT_NEAR(together[t], c.expected[t], c.tolerance[t]);
            const std::byte* x = c.x_bytes[t].data();
            float alone = 0.0f;
            c.kernel.dot(c.row.data(), columns, &x, 1, &alone, 1);
            EXPECT_EQ(together[t], alone) << Info(dtype).name << " token " << t << " of " << tokens;
          }
        }
      }
    }
  });
}

TEST(SimdDotTest, WritesOnlyItsOutputs) {
  ForEachTarget([](const SimdKernels& simd) {
    for (const DType dtype : kFormats) {
      const int64_t columns = std::max<int64_t>(64, Info(dtype).block_elements);
      Case c(dtype, columns, 5, 0, simd);
      std::vector<const std::byte*> x;
      for (TightBytes& bytes : c.x_bytes) x.push_back(bytes.data());
      std::vector<float> out(5 * 3, 42.0f);
      c.kernel.dot(c.row.data(), columns, x.data(), 5, out.data(), 3);
      for (size_t i = 0; i < out.size(); ++i) {
        if (i % 3 != 0) {
          EXPECT_EQ(out[i], 42.0f);
        }
      }
    }
  });
}

TEST(SimdDotTest, AFormatWithoutKernelHasNone) {
  ForEachTarget([](const SimdKernels& simd) {
    EXPECT_EQ(simd.find_dot(DType::kI32).dot, nullptr);
    EXPECT_EQ(simd.find_dot(DType::kF64).dot, nullptr);
  });
}

TEST(SimdDotTest, HalfPrecisionWeightsKeepTheirSubnormals) {
  ForEachTarget([](const SimdKernels& simd) {
    std::vector<float> weights(16);
    for (int i = 0; i < 16; ++i) weights[i] = std::ldexp(static_cast<float>(i + 1), -24);
    std::vector<std::byte> row(32);
    ASSERT_TRUE(EncodeRow(DType::kF16, weights, row.data()).ok());
    const std::vector<float> ones(16, 1.0f);
    const std::byte* x = reinterpret_cast<const std::byte*>(ones.data());
    float out = 0.0f;
    simd.find_dot(DType::kF16).dot(row.data(), 16, &x, 1, &out, 1);
    EXPECT_EQ(out, std::ldexp(136.0f, -24));
  });
}

}  // namespace
}  // namespace odmoe
