// What telemetry costs the store under its lock, for a model of Kimi-K2's shape: 60 layers of 384
// experts, demanded eight of a layer at a time.
//
//   build/release/bench/store_telemetry
#include <memory>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "services/core/experts/expert_catalog.h"
#include "services/expert_storage/telemetry/demand_recorder.h"

namespace odmoe {
namespace {

constexpr int32_t kLayers = 60;
constexpr int32_t kExperts = 384;
constexpr int kChosen = 8;

ExpertCatalog Catalog() {
  std::vector<LayerExperts> layers;
  for (int32_t i = 0; i < kLayers; ++i) {
    LayerExperts& layer = layers.emplace_back();
    layer.layer = i;
    layer.expert_count = kExperts;
    layer.layout = MakeExpertLayout(DType::kF32, DType::kF32, DType::kF32, 32, 32).value();
  }
  return ExpertCatalog::Create("bench", std::move(layers)).value();
}

std::vector<int64_t> Trace() {
  std::mt19937 random(1);
  std::vector<int64_t> trace;
  for (int token = 0; token < 64; ++token) {
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      for (int i = 0; i < kChosen; ++i) trace.push_back(layer * kExperts + random() % kExperts);
    }
  }
  return trace;
}

void DemandAlone(benchmark::State& state) {
  DemandRecorder recorder(Catalog());
  const std::vector<int64_t> trace = Trace();
  size_t next = 0;
  for (auto _ : state) {
    if (next % kChosen == 0) recorder.SetNow(static_cast<int64_t>(next) * 1000);
    recorder.Demanded(trace[next % trace.size()]);
    ++next;
  }
}
BENCHMARK(DemandAlone);

// A miss in full: demanded, read, inserted, another evicted, answered.
void WholeMiss(benchmark::State& state) {
  DemandRecorder recorder(Catalog());
  const std::vector<int64_t> trace = Trace();
  size_t next = 0;
  for (auto _ : state) {
    const int64_t expert = trace[next % trace.size()];
    recorder.SetNow(static_cast<int64_t>(next) * 1000);
    recorder.Demanded(expert);
    recorder.Missed(expert);
    recorder.Evicted(trace[(next * 7 + 1) % trace.size()]);
    recorder.ReadDone(ReadControl::Urgency::kDemand, 1 << 20, 300);
    recorder.Inserted(expert);
    recorder.Answered(350);
    ++next;
  }
}
BENCHMARK(WholeMiss);

// What Stats copies under the lock; with each expert's heat.
void Snapshot(benchmark::State& state) {
  DemandRecorder recorder(Catalog());
  for (const int64_t expert : Trace()) recorder.Demanded(expert);
  for (auto _ : state) {
    StoreTelemetry telemetry;
    recorder.Fill(state.range(0) != 0, telemetry);
    benchmark::DoNotOptimize(telemetry);
  }
}
BENCHMARK(Snapshot)->ArgName("with_experts")->Arg(0)->Arg(1);

}  // namespace
}  // namespace odmoe

BENCHMARK_MAIN();
