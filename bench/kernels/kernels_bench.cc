// How fast weights stream through the kernels, beside what the memory gives.
//
//   ReadMemory/<threads>              plain reads: the bound for a single token
//   MatVec/<format>/<threads>         one token against weights larger than any cache
//   MatVecCached/<format>             one token, one thread, weights of one small expert in cache
//   MatMul/<format>/<tokens>/<threads> several tokens: flops are the measure
#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "services/core/base/available_cores.h"
#include "services/core/tensor/convert.h"
#include "services/core/tensor/dtype.h"
#include "services/core/kernels/activations.h"
#include "services/core/kernels/compute_pool.h"
#include "services/core/kernels/mat_mul.h"
#include "services/core/kernels/simd.h"

namespace odmoe {
namespace {

constexpr DType kFormats[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0};
// Kimi-K2's width. The large matrix is four times a big server's last-level cache.
constexpr int64_t kColumns = 7168;
constexpr uint64_t kLargeBytes = uint64_t{400} << 20;
constexpr uint64_t kCachedBytes = uint64_t{1} << 20;

struct Weights {
  Weights(DType dtype, uint64_t size) {
    matrix.dtype = dtype;
    matrix.columns = kColumns;
    matrix.row_bytes = *RowBytes(dtype, kColumns);
    matrix.rows = static_cast<int64_t>(size / matrix.row_bytes);
    bytes.resize(matrix.bytes());
    std::vector<float> row(kColumns);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& v : row) v = normal(random);
    if (!EncodeRow(dtype, row, bytes.data()).ok()) std::abort();
    for (int64_t r = 1; r < matrix.rows; ++r) {
      std::memcpy(bytes.data() + r * matrix.row_bytes, bytes.data(), matrix.row_bytes);
    }
    matrix.data = bytes.data();
  }
  std::vector<std::byte> bytes;
  WeightMatrix matrix;
};

// Runs of one format follow each other, so one large matrix at a time is kept.
const WeightMatrix& LargeMatrix(DType dtype) {
  static std::unique_ptr<Weights> weights;
  if (weights == nullptr || weights->matrix.dtype != dtype) {
    weights.reset();
    weights = std::make_unique<Weights>(dtype, kLargeBytes);
  }
  return weights->matrix;
}

void RunProducts(benchmark::State& state, const WeightMatrix& weights, int64_t tokens,
                 int threads) {
  ComputePool pool(threads);
  const std::vector<float> x(tokens * kColumns, 0.5f);
  std::vector<float> out(tokens * weights.rows);
  Activations activations;
  for (auto _ : state) {
    activations.Set(x.data(), tokens, kColumns, kColumns);
    MatMul(pool, weights, activations, out.data(), weights.rows);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(weights.bytes()));
  state.counters["flops"] = benchmark::Counter(
      2.0 * static_cast<double>(tokens * weights.rows * kColumns),
      benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(Simd().target);
}

// The dot product is the cheapest consumer of memory there is; f32 with one token reads only.
void ReadMemory(benchmark::State& state, int threads) {
  const WeightMatrix& weights = LargeMatrix(DType::kF32);
  ComputePool pool(threads);
  const uint64_t words = weights.bytes() / sizeof(uint64_t);
  const auto* data = reinterpret_cast<const uint64_t*>(weights.data);
  constexpr int64_t kGrain = 1 << 15;
  std::vector<uint64_t> sums(words / kGrain + 1);
  for (auto _ : state) {
    pool.ParallelFor(static_cast<int64_t>(words), kGrain, [&](int64_t begin, int64_t end) {
      uint64_t sum = 0;
      for (int64_t i = begin; i < end; ++i) sum += data[i];
      sums[begin / kGrain] = sum;
    });
    benchmark::DoNotOptimize(sums.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(words * sizeof(uint64_t)));
}

void MatVecCached(benchmark::State& state, DType dtype) {
  const Weights weights(dtype, kCachedBytes);
  RunProducts(state, weights.matrix, 1, 1);
}

void RegisterAll() {
  const int processors = AvailableCores();
  std::vector<int> thread_counts = {1};
  if (processors > 1) thread_counts.push_back(processors);
  const auto configure = [](benchmark::internal::Benchmark* b) {
    b->UseRealTime()->MeasureProcessCPUTime()->Unit(benchmark::kMillisecond);
  };
  for (const int threads : thread_counts) {
    configure(benchmark::RegisterBenchmark(
        ("ReadMemory/" + std::to_string(threads)).c_str(),
        [threads](benchmark::State& state) { ReadMemory(state, threads); }));
  }
  for (const DType dtype : kFormats) {
    const std::string format(Info(dtype).name);
    configure(benchmark::RegisterBenchmark(
        ("MatVecCached/" + format).c_str(),
        [dtype](benchmark::State& state) { MatVecCached(state, dtype); }));
    for (const int threads : thread_counts) {
      for (const int64_t tokens : {1, 64}) {
        const std::string name =
            tokens == 1 ? "MatVec/" + format : "MatMul/" + format + "/" + std::to_string(tokens);
        configure(benchmark::RegisterBenchmark(
            (name + "/" + std::to_string(threads)).c_str(),
            [=](benchmark::State& state) {
              RunProducts(state, LargeMatrix(dtype), tokens, threads);
            }));
      }
    }
  }
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) {
  odmoe::RegisterAll();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
