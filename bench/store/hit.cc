// How long a hit takes when the store is another process: Acquire, Wait for each expert, release.
// Meanwhile another client keeps the store reading and evicting.
//
// Workloads: --batch experts an Acquire (8: what a token asks of a layer); --churn clients that
// demand cold experts as fast as they come.
#include <unistd.h>

#include <atomic>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bench/store/percentiles.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "services/core/base/status_macros.h"
#include "tests/support/expert_directory.h"
#include "tests/support/subprocess.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

constexpr int32_t kExperts = 64;  // a layer; layer 0 is hot, layers 1 to 3 are churned through

struct Flags {
  int batch = 8;
  int rounds = 200'000;
  int churn = 1;
  int64_t dim = 256;
  int64_t ffn = 512;
};

absl::StatusOr<std::unique_ptr<Subprocess>> StartStore(const std::string& model,
                                                       std::string& endpoint) {
  Subprocess::Options options;
  options.arguments = {absl::StrCat(ODMOE_BIN_DIR, "/odmoe-expert-storage"), "--model", model,
                       "--expert-budget", "25%"};
  ODMOE_ASSIGN_OR_RETURN(auto process, Subprocess::Start(options));
  ODMOE_ASSIGN_OR_RETURN(const std::string line,
                         process->WaitForLine("listening on ", absl::Minutes(1)));
  endpoint = line.substr(line.rfind(' ') + 1);
  return process;
}

// Demands experts that are not resident until told to stop.
void Churn(const std::string& endpoint, int number, const std::atomic<bool>& stop) {
  const auto store = ConnectSharedMemoryStore(endpoint, "");
  if (!store.ok()) return;
  for (int round = 0; !stop.load(std::memory_order_relaxed); ++round) {
    const int32_t next = round * 2 + number * 31;
    const auto batch =
        (*store)->Acquire({{1 + next / kExperts % 3, next % kExperts},
                           {1 + next / kExperts % 3, (next + 1) % kExperts}},
                          absl::Now() + absl::Seconds(10));
    for (size_t i = 0; batch.ok() && i < (*batch)->size(); ++i) (*batch)->Wait(i).IgnoreError();
  }
}

absl::Status Measure(const Flags& flags, ExpertStore& store, uint64_t& touched) {
  std::vector<ExpertId> ids;
  for (int i = 0; i < flags.batch; ++i) ids.push_back({0, i});
  std::vector<int64_t> hits, misses;
  for (int round = 0; round < flags.rounds; ++round) {
    const int64_t start = absl::GetCurrentTimeNanos();
    size_t hit = 0;
    {
      ODMOE_ASSIGN_OR_RETURN(const auto batch,
                             store.Acquire(ids, absl::Now() + absl::Seconds(10)));
      for (size_t i = 0; i < ids.size(); ++i) {
        ODMOE_ASSIGN_OR_RETURN(const ExpertView view, batch->Wait(i));
        touched += static_cast<uint64_t>(view.data[0]);
      }
      hit = batch->hits();
    }
    (hit == ids.size() ? hits : misses).push_back(absl::GetCurrentTimeNanos() - start);
  }
  std::cout << "all hits:  " << Percentiles(hits) << "\n"
            << "with miss: " << Percentiles(misses) << "\n";
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags) {
  const TemporaryDirectory directory;
  MemoryExpertSource::RandomOptions shape;
  shape.layers = 4;
  shape.experts_per_layer = kExperts;
  shape.dim = flags.dim;
  shape.ffn = flags.ffn;
  WriteRandomExperts(directory.path(), shape);
  std::string endpoint;
  ODMOE_ASSIGN_OR_RETURN(const auto process, StartStore(directory.path(), endpoint));
  ODMOE_ASSIGN_OR_RETURN(const auto store, ConnectSharedMemoryStore(endpoint, ""));
  ODMOE_ASSIGN_OR_RETURN(const StoreStats before, store->Stats());
  std::atomic<bool> stop{false};
  std::vector<std::thread> churners;
  for (int i = 0; i < flags.churn; ++i) {
    churners.emplace_back([&, i] { Churn(endpoint, i, stop); });
  }
  uint64_t touched = 0;
  const absl::Time start = absl::Now();
  const absl::Status measured = Measure(flags, *store, touched);
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  stop = true;
  for (std::thread& churner : churners) churner.join();
  ODMOE_RETURN_IF_ERROR(measured);
  ODMOE_ASSIGN_OR_RETURN(const StoreStats after, store->Stats());
  std::cout << "batches of " << flags.batch << ", slots " << after.slot_count << " of "
            << after.slot_bytes << " bytes, " << flags.churn << " churning; evictions/s "
            << double(after.evictions - before.evictions) / seconds << "; " << CpuName()
            << (touched == 0 ? "." : "") << "\n";
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Times hits of a store in another process.");
  app.add_option("--batch", flags.batch)->check(CLI::Range(1, 16))->capture_default_str();
  app.add_option("--rounds", flags.rounds)->capture_default_str();
  app.add_option("--churn", flags.churn)->capture_default_str();
  app.add_option("--dim", flags.dim)->capture_default_str();
  app.add_option("--ffn", flags.ffn)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Run(flags);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) { return odmoe::Main(argc, argv); }
