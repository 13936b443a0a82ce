#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/kernels/simd.h"
#include "tests/core/kernels/each_target.h"

namespace odmoe {
namespace {

constexpr double kFloatEpsilon = std::numeric_limits<float>::epsilon();

std::vector<float> RandomFloats(size_t n, float scale, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

// Two vectors of the widest target, and what is left over.
constexpr int64_t kLongest = 35;

TEST(SimdVectorTest, QuantizedActivationsEqualTheScalarTwin) {
  ForEachTarget([](const SimdKernels& simd) {
    const std::vector<float> x = RandomFloats(4 * 32, 3.0f, 1);
    std::vector<BlockQ8Activation> blocks(4);
    simd.quantize_q8(x.data(), 4 * 32, blocks.data());
    for (int b = 0; b < 4; ++b) {
      float max = 0.0f;
      for (int i = 0; i < 32; ++i) max = std::max(max, std::abs(x[b * 32 + i]));
      EXPECT_EQ(blocks[b].d, max / 127.0f);
      for (int i = 0; i < 32; ++i) {
        EXPECT_EQ(blocks[b].q[i], std::nearbyint(x[b * 32 + i] * (127.0f / max)));
      }
    }
  });
}

TEST(SimdVectorTest, TinyActivationsQuantizeToZero) {
  ForEachTarget([](const SimdKernels& simd) {
    std::vector<float> x(32, 1e-40f);
    BlockQ8Activation block;
    simd.quantize_q8(x.data(), 32, &block);
    EXPECT_EQ(block.d, 0.0f);
    for (const int8_t q : block.q) EXPECT_EQ(q, 0);
  });
}

TEST(SimdVectorTest, RmsNormAgreesWithDouble) {
  ForEachTarget([](const SimdKernels& simd) {
    for (int64_t n = 1; n <= kLongest; ++n) {
      const std::vector<float> x = RandomFloats(n, 2.0f, 2);
      const std::vector<float> weight = RandomFloats(n, 1.0f, 3);
      std::vector<float> out(n);
      simd.rms_norm(x.data(), weight.data(), 1e-6f, n, out.data());
      double squares = 0.0;
      for (const float v : x) squares += static_cast<double>(v) * v;
      const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + 1e-6);
      for (int64_t i = 0; i < n; ++i) {
        const double expected = x[i] * scale * weight[i];
        // Half the rounding of a sum of n squares, a root, a quotient and two products.
        EXPECT_NEAR(out[i], expected, (0.5 * static_cast<double>(n) + 6) * kFloatEpsilon *
                                          std::abs(expected));
      }
    }
  });
}

// exp in float: 2 ulp of its own, and the argument's rounding, |x| * epsilon / 2, comes out as a
// relative error.
double ExpTolerance(double x) { return (2.0 + std::abs(x)) * kFloatEpsilon; }

TEST(SimdVectorTest, SigmoidAgreesWithDoubleAndSaturates) {
  ForEachTarget([](const SimdKernels& simd) {
    std::vector<float> x = {-1000.0f, -200.0f, -104.0f, -88.0f, -20.0f, -1.0f, 0.0f,
                            1e-30f,   0.5f,    3.0f,    17.0f,  88.0f,  200.0f, 1000.0f};
    const std::vector<float> original = x;
    simd.sigmoid(x.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = 1.0 / (1.0 + std::exp(-static_cast<double>(original[i])));
      EXPECT_NEAR(x[i], expected,
                  (ExpTolerance(original[i]) + 2 * kFloatEpsilon) * expected + 1e-37)
          << original[i];
    }
  });
}

TEST(SimdVectorTest, NotANumberStaysNotANumber) {
  ForEachTarget([](const SimdKernels& simd) {
    const float nan = std::nanf("");
    std::vector<float> x = {1.0f, nan, 2.0f};
    simd.sigmoid(x.data(), 3);
    EXPECT_TRUE(std::isnan(x[1]));
    EXPECT_FALSE(std::isnan(x[2]));
    x = {1.0f, nan, 2.0f};
    simd.softmax(x.data(), 1.0f, 3);
    EXPECT_TRUE(std::isnan(x[0]) && std::isnan(x[1]) && std::isnan(x[2]));
    x = {1.0f, nan, 2.0f};
    const std::vector<float> ones(3, 1.0f);
    simd.silu_gate(x.data(), ones.data(), 3, x.data());
    EXPECT_TRUE(std::isnan(x[1]));
  });
}

TEST(SimdVectorTest, SiluGateAgreesWithDoubleAtEveryLength) {
  ForEachTarget([](const SimdKernels& simd) {
    for (int64_t n = 0; n <= kLongest; ++n) {
      const std::vector<float> gate = RandomFloats(n, 5.0f, 4);
      const std::vector<float> up = RandomFloats(n, 1.0f, 5);
      std::vector<float> out(n);
      simd.silu_gate(gate.data(), up.data(), n, out.data());
      for (int64_t i = 0; i < n; ++i) {
        const double g = gate[i];
        const double expected = g / (1.0 + std::exp(-g)) * up[i];
        EXPECT_NEAR(out[i], expected, (ExpTolerance(g) + 4 * kFloatEpsilon) * std::abs(expected));
      }
    }
  });
}

TEST(SimdVectorTest, ElementwiseResultsDoNotDependOnPosition) {
  ForEachTarget([](const SimdKernels& simd) {
    const std::vector<float> gate = RandomFloats(kLongest, 5.0f, 4);
    const std::vector<float> up = RandomFloats(kLongest, 1.0f, 5);
    std::vector<float> whole(kLongest);
    simd.silu_gate(gate.data(), up.data(), kLongest, whole.data());
    for (int64_t i = 0; i < kLongest; ++i) {
      float alone = 0.0f;
      simd.silu_gate(&gate[i], &up[i], 1, &alone);
      EXPECT_EQ(alone, whole[i]);
    }
  });
}

TEST(SimdVectorTest, SoftmaxAgreesWithDouble) {
  ForEachTarget([](const SimdKernels& simd) {
    for (int64_t n = 1; n <= kLongest; ++n) {
      const std::vector<float> x = RandomFloats(n, 20.0f, 6);
      std::vector<float> out = x;
      const float scale = 0.25f;
      simd.softmax(out.data(), scale, n);
      double max = -1e300;
      for (const float v : x) max = std::max(max, static_cast<double>(v) * scale);
      double sum = 0.0;
      for (const float v : x) sum += std::exp(v * static_cast<double>(scale) - max);
      for (int64_t i = 0; i < n; ++i) {
        const double argument = x[i] * static_cast<double>(scale) - max;
        const double expected = std::exp(argument) / sum;
        EXPECT_NEAR(out[i], expected, (ExpTolerance(std::abs(argument) + std::abs(max)) +
                                       4 * kFloatEpsilon) * expected + 1e-37);
      }
    }
  });
}

TEST(SimdVectorTest, SoftmaxInStripsAgreesWithSoftmaxAtOnce) {
  ForEachTarget([](const SimdKernels& simd) {
    const int64_t n = 200;
    const std::vector<float> x = RandomFloats(n, 8.0f, 7);
    std::vector<float> expected = x;
    simd.softmax(expected.data(), 0.5f, n);
    float max = -std::numeric_limits<float>::infinity();
    float sum = 0.0f;
    std::vector<float> gathered;
    for (int64_t first = 0; first < n; first += 64) {
      std::vector<float> strip(x.begin() + first, x.begin() + std::min<int64_t>(first + 64, n));
      const float correction =
          simd.softmax_strip(strip.data(), 0.5f, static_cast<int64_t>(strip.size()), &max, &sum);
      for (float& v : gathered) v *= correction;
      gathered.insert(gathered.end(), strip.begin(), strip.end());
    }
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(gathered[i] / sum, expected[i], 200 * kFloatEpsilon * expected[i] + 1e-37);
    }
  });
}

TEST(SimdVectorTest, WeightedRowsAgreeWithDoubleAtEveryWidth) {
  ForEachTarget([](const SimdKernels& simd) {
    const int64_t rows = 5;
    const int64_t stride = 80;
    const std::vector<float> x = RandomFloats(rows * stride, 1.0f, 8);
    const std::vector<float> weights = RandomFloats(rows, 1.0f, 9);
    for (int64_t n = 0; n <= stride; ++n) {
      std::vector<float> out = RandomFloats(n, 1.0f, 10);
      const std::vector<float> before = out;
      simd.weighted_rows(weights.data(), rows, x.data(), stride, n, out.data());
      for (int64_t c = 0; c < n; ++c) {
        double expected = before[c];
        double magnitude = std::abs(expected);
        for (int64_t r = 0; r < rows; ++r) {
          expected += static_cast<double>(weights[r]) * x[r * stride + c];
          magnitude += std::abs(static_cast<double>(weights[r]) * x[r * stride + c]);
        }
        EXPECT_NEAR(out[c], expected, (rows + 2) * kFloatEpsilon * magnitude);
      }
    }
  });
}

TEST(SimdVectorTest, RopeTurnsNeighbouringPairs) {
  ForEachTarget([](const SimdKernels& simd) {
    const float c = std::cos(0.3f);
    const float s = std::sin(0.3f);
    const std::vector<float> table = {0.0f, 1.0f, c, s};  // a quarter turn, 0.3 radians
    std::vector<float> x = {2.0f, 3.0f, 1.0f, 0.0f};
    simd.rope(table.data(), 4, x.data());
    EXPECT_EQ(x, (std::vector<float>{-3.0f, 2.0f, c, s}));
  });
}

TEST(SimdVectorTest, RopeTurnsHalves) {
  ForEachTarget([](const SimdKernels& simd) {
    const float c = std::cos(0.3f);
    const float s = std::sin(0.3f);
    const std::vector<float> table = {0.0f, 1.0f, c, s};
    std::vector<float> x = {2.0f, 1.0f, 3.0f, 0.0f};
    simd.rope_halves(table.data(), 4, x.data());
    EXPECT_EQ(x, (std::vector<float>{-3.0f, c, 2.0f, s}));
  });
}

TEST(SimdVectorTest, RoundsTo8BitsAsBitnetsLayersDo) {
  ForEachTarget([](const SimdKernels& simd) {
    for (int64_t n = 1; n <= kLongest; ++n) {
      const std::vector<float> x = RandomFloats(static_cast<size_t>(n), 3.0f, 5);
      std::vector<float> rounded = x;
      simd.round_to_8_bits(n, rounded.data());
      float largest = 1e-5f;
      for (const float v : x) largest = std::max(largest, std::abs(v));
      const float scale = 127.0f / largest;
      for (int64_t i = 0; i < n; ++i) {
        EXPECT_EQ(rounded[i], std::nearbyint(x[i] * scale) / scale) << i << " of " << n;
      }
      std::vector<float> again = rounded;
      simd.round_to_8_bits(n, again.data());
      for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(again[i], rounded[i], 1e-6f * largest);
    }
    std::vector<float> tiny(kLongest, 1e-9f);
    simd.round_to_8_bits(kLongest, tiny.data());
    EXPECT_EQ(tiny, std::vector<float>(kLongest, 0.0f));
    std::vector<float> lost = {1.0f, std::nanf("")};
    simd.round_to_8_bits(2, lost.data());
    EXPECT_TRUE(std::isnan(lost[1]));
  });
}

TEST(SimdVectorTest, ReluSquaredGateKeepsNotANumber) {
  ForEachTarget([](const SimdKernels& simd) {
    const std::vector<float> gate = {3.0f, -3.0f, 0.5f, std::nanf("")};
    const std::vector<float> up = {2.0f, 2.0f, -4.0f, 1.0f};
    std::vector<float> out(4);
    simd.relu_squared_gate(gate.data(), up.data(), 4, out.data());
    EXPECT_EQ(out[0], 18.0f);
    EXPECT_EQ(out[1], 0.0f);
    EXPECT_EQ(out[2], -1.0f);
    EXPECT_TRUE(std::isnan(out[3]));
  });
}

TEST(SimdVectorTest, ScalesAndAdds) {
  ForEachTarget([](const SimdKernels& simd) {
    std::vector<float> out = {1.0f, 2.0f, 3.0f};
    const std::vector<float> x = {10.0f, 20.0f, 30.0f};
    simd.scaled_add(0.5f, x.data(), 3, out.data());
    EXPECT_EQ(out, (std::vector<float>{6.0f, 12.0f, 18.0f}));
    simd.scale(2.0f, 3, out.data());
    EXPECT_EQ(out, (std::vector<float>{12.0f, 24.0f, 36.0f}));
  });
}

}  // namespace
}  // namespace odmoe
