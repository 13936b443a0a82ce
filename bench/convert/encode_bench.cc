// Encoding of weights, a format at a time on one thread, beside a reference library's in turns,
// whose bytes are compared too. See README.md.
#include <dlfcn.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "converter/quantize/encode.h"
#include "converter/quantize/lane_encoders.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

constexpr int64_t kColumns = 7168;  // Kimi-K2's width
constexpr int64_t kRows = 32;
constexpr int kRounds = 5;
constexpr double kSecondsARound = 0.05;

// ggml_quantize_chunk(type, values, out, start, rows, columns, importance)
using QuantizeChunk = size_t (*)(int, const float*, void*, int64_t, int64_t, int64_t,
                                 const float*);

// Time this thread ran: a busy machine takes turns, and only ratios are of interest.
double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Millions of elements a second.
double Rate(const std::function<void()>& encode) {
  const double start = ThreadSeconds();
  int64_t elements = 0;
  while (ThreadSeconds() - start < kSecondsARound) {
    encode();
    elements += kRows * kColumns;
  }
  return static_cast<double>(elements) / (ThreadSeconds() - start) / 1e6;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Inputs {
  Inputs() : values(kRows * kColumns), importance(kColumns) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& v : values) v = 0.02f * normal(random);
    for (float& w : importance) w = std::pow(normal(random), 2.0f);
  }
  std::vector<float> values;
  std::vector<float> importance;
};

// False: the bytes differ.
bool Compare(const DTypeInfo& info, const Inputs& inputs, bool weighted, QuantizeChunk reference) {
  const auto importance =
      weighted ? absl::MakeConstSpan(inputs.importance) : absl::Span<const float>();
  std::vector<std::byte> ours(kRows * *RowBytes(info.dtype, kColumns)), theirs(ours.size());
  std::vector<double> our_rates, their_rates;
  for (int round = 0; round < kRounds; ++round) {
    if (reference != nullptr) {
      their_rates.push_back(Rate([&] {
        reference(static_cast<int>(info.dtype), inputs.values.data(), theirs.data(), 0, kRows,
                  kColumns, weighted ? importance.data() : nullptr);
      }));
    }
    our_rates.push_back(Rate([&] {
      if (!EncodeRows(info.dtype, inputs.values, kColumns, importance, ours.data()).ok()) abort();
    }));
  }
  std::printf("%-8s %-8s %8.1f", std::string(info.name).c_str(), weighted ? "weighted" : "",
              Median(our_rates));
  const bool same = reference == nullptr || ours == theirs;
  if (reference != nullptr) {
    std::printf(" %8.1f %6.2f%s", Median(their_rates), Median(our_rates) / Median(their_rates),
                same ? "" : "  OTHER BYTES");
  }
  std::printf("\n");
  return same;
}

// Widening of halves, which comes before when a model is read.
void TimeWidening(const Inputs& inputs) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    std::vector<std::byte> halves(inputs.values.size() * 2);
    std::vector<float> values(inputs.values.size());
    if (!EncodeRow(dtype, inputs.values, halves.data()).ok()) abort();
    const double rate = Rate([&] {
      if (!DecodeRow(dtype, halves.data(), absl::MakeSpan(values)).ok()) abort();
    });
    std::printf("%-8s %-8s %8.1f\n", std::string(Info(dtype).name).c_str(), "decode", rate);
  }
}

int RunAll(const char* library) {
  QuantizeChunk reference = nullptr;
  if (library != nullptr) {
    void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    reference = handle == nullptr
                    ? nullptr
                    : reinterpret_cast<QuantizeChunk>(dlsym(handle, "ggml_quantize_chunk"));
    if (reference == nullptr) {
      std::fprintf(stderr, "%s: no ggml_quantize_chunk: %s\n", library, dlerror());
      return 1;
    }
  }
  const Inputs inputs;
  bool same = true;
  std::printf("%s, millions of elements a second%s\n", BestLaneEncoders().target,
              reference != nullptr ? ": ours, the reference's, ratio" : "");
  TimeWidening(inputs);
  for (const DTypeInfo& info : AllDTypes()) {
    if (!CanEncode(info.dtype) || info.dtype == DType::kF32) continue;
    same &= Compare(info, inputs, false, reference);
    if (info.block_elements > 1) same &= Compare(info, inputs, true, reference);
  }
  return same ? 0 : 1;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) {
  if (argc > 2) {
    std::fprintf(stderr, "usage: encode_bench [LIBGGML_BASE.so]\n");
    return 2;
  }
  return odmoe::RunAll(argc == 2 ? argv[1] : nullptr);
}
