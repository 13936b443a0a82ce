// What a policy costs the store at Kimi-K2's shape: 60 layers of 384 experts, 8 a token and layer.
//
// Real routing is replayed, stretched: the OLMoE trace's layers are repeated, and each copy names
// its experts by numbers of its own. Nothing is read. Prints nanoseconds of processor time an
// access, all of the working set, residency table and pins included.
#include <cstdint>
#include <ctime>
#include <iostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"
#include "services/expert_storage/policy/make_policy.h"
#include "services/expert_storage/policy/shadow_policies.h"
#include "services/expert_storage/replay/replay.h"

namespace odmoe {
namespace {

struct PolicyBenchFlags {
  std::string trace = "tests/data/traces/olmoe-1b-7b.jsonl";
  int32_t layers = 60;
  int32_t experts = 384;
  std::vector<double> budgets = {0.9, 4.0};
};

RouteTrace Stretched(const RouteTrace& trace, int32_t layers, int32_t experts) {
  RouteTrace wide = trace;
  wide.layer_count = layers;
  wide.expert_count = experts;
  const int32_t step = experts / trace.expert_count;
  for (RouteTrace::Token& token : wide.tokens) {
    const auto narrow = token.experts;
    token.experts.assign(layers, {});
    for (int32_t layer = 0; layer < layers; ++layer) {
      const int32_t copy = layer / trace.layer_count;
      for (const int32_t expert : narrow[layer % narrow.size()]) {
        token.experts[layer].push_back((expert * step + copy) % experts);
      }
    }
  }
  return wide;
}

double NanosecondsSince(std::clock_t start) {
  return 1e9 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

// Demands alone, as a store with shadows has them, without the store.
double ShadowNanoseconds(const RouteTrace& trace, uint64_t slots) {
  const std::vector<int32_t> counts(trace.layer_count, trace.expert_count);
  ShadowPolicies shadows(std::make_shared<PolicyLayers>(counts, trace.top_k),
                         PolicyKind::kDefault, slots);
  int64_t demands = 0;
  const std::clock_t start = std::clock();
  for (const RouteTrace::Token& token : trace.tokens) {
    for (int64_t layer = 0; layer < trace.layer_count; ++layer) {
      for (const int32_t expert : token.experts[layer]) {
        shadows.Demanded(1, layer * trace.expert_count + expert);
        ++demands;
      }
    }
  }
  return NanosecondsSince(start) / static_cast<double>(demands);
}

absl::Status RunPolicyBench(const PolicyBenchFlags& flags) {
  auto read = ReadRouteTrace(PosixFileSystem(), flags.trace);
  if (!read.ok()) return read.status();
  if (flags.experts < read->expert_count) {
    return absl::InvalidArgumentError("fewer experts than the trace has");
  }
  const RouteTrace trace = Stretched(*read, flags.layers, flags.experts);
  std::cout << absl::StrFormat("%d layers of %d experts, a token demands %d\n", trace.layer_count,
                               trace.expert_count, trace.demand());
  for (const double times : flags.budgets) {
    const int64_t slots = static_cast<int64_t>(times * static_cast<double>(trace.demand()));
    std::vector<ReplayPolicy> policies;
    for (const PolicyKind kind : AllPolicyKinds()) policies.push_back({kind});
    policies.push_back({});
    for (const ReplayPolicy& policy : policies) {
      const std::clock_t start = std::clock();
      auto result = Replay(trace, policy, slots);
      const double nanoseconds = NanosecondsSince(start);
      if (!result.ok()) return result.status();
      std::cout << absl::StrFormat("%4.1fx  %-16s %7.0f ns an access, %4.1f%% hits\n", times,
                                   policy.name(),
                                   nanoseconds / static_cast<double>(result->accesses),
                                   100.0 * result->hit_rate());
    }
    std::cout << absl::StrFormat("%4.1fx  %-16s %7.0f ns an access\n", times, "all shadows",
                                 ShadowNanoseconds(trace, static_cast<uint64_t>(slots)));
  }
  return absl::OkStatus();
}

int RunPolicyBenchMain(int argc, char** argv) {
  CLI::App app("Times eviction policies on stretched real routing");
  PolicyBenchFlags flags;
  app.add_option("--trace", flags.trace, "The routing to stretch")->capture_default_str();
  app.add_option("--layers", flags.layers)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--experts", flags.experts)->check(CLI::Range(64, 65536))->capture_default_str();
  app.add_option("--budget", flags.budgets, "Multiples of one token's demand")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = RunPolicyBench(flags);
  if (status.ok()) return 0;
  std::cerr << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) { return odmoe::RunPolicyBenchMain(argc, argv); }
