// A client that demands random experts for as long as it is told to, and checks every byte it pins
// by the catalog's XXH3: what bench/store/thrash runs several of in a memory cgroup. With --resize
// it gives the store another budget again and again meanwhile.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "tests/support/expert_directory.h"
#include "xxhash.h"

namespace odmoe {
namespace {

struct Flags {
  std::string make;      // a directory to write a model to, and nothing else
  std::string endpoint;
  std::string model;
  double seconds = 60.0;
  int threads = 2;
  int batch = 4;
  double pause_ms = 0.0;  // of each thread between two batches
  std::vector<std::string> resize;
  int64_t layers = 8;
  int64_t experts = 64;
  int64_t ffn = 512;
};

struct Tally {
  std::atomic<uint64_t> checked{0};
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint64_t> failed{0};
  std::atomic<uint64_t> resized{0};
  std::atomic<uint64_t> resizes_failed{0};
};

bool Holds(const ExpertCatalog& catalog, ExpertId id, const ExpertView& view) {
  const LayerExperts& layer = *catalog.FindLayer(id.layer);
  return XXH3_64bits(view.data, layer.layout.bytes) == layer.xxh3[id.expert];
}

void Thrash(ExpertStore& store, const Flags& flags, int number, absl::Time end, Tally& tally) {
  std::mt19937 random(static_cast<unsigned>(number * 7919) ^ static_cast<unsigned>(getpid()));
  const ExpertCatalog& catalog = store.catalog();
  while (absl::Now() < end) {
    const LayerExperts& layer = catalog.layers()[random() % catalog.layers().size()];
    std::vector<ExpertId> ids;
    const size_t most = std::min<size_t>(flags.batch, std::max<size_t>(1, store.max_batch()));
    for (size_t i = 0; i < most; ++i) {
      ids.push_back({layer.layer, static_cast<int32_t>(random() % layer.expert_count)});
    }
    const auto batch = store.Acquire(ids, absl::Now() + absl::Minutes(1));
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto view = batch.ok() ? (*batch)->Wait(i) : batch.status();
      if (!view.ok()) {
        if (tally.failed.fetch_add(1) < 5) std::cerr << view.status() << std::endl;
        continue;
      }
      tally.checked.fetch_add(1);
      if (!Holds(catalog, ids[i], *view)) tally.wrong.fetch_add(1);
    }
    absl::SleepFor(absl::Milliseconds(flags.pause_ms));
  }
}

void ResizeAgainAndAgain(const Flags& flags, absl::Time end, Tally& tally) {
  const auto admin = ExpertStorageAdmin::Connect(flags.endpoint, absl::Minutes(2));
  for (size_t round = 0; admin.ok() && absl::Now() < end; ++round) {
    const auto budget = ParseBudget(flags.resize[round % flags.resize.size()]);
    const auto models = (*admin)->ResizeBudget(flags.model, *budget, absl::Seconds(30));
    if (models.ok()) {
      tally.resized.fetch_add(1);
    } else {
      // A budget that is not to be had, for another model's sake or for pins, is a refusal.
      if (!absl::IsResourceExhausted(models.status())) tally.resizes_failed.fetch_add(1);
      std::cerr << "resize: " << models.status() << std::endl;
    }
    absl::SleepFor(absl::Seconds(5));
  }
}

absl::Status Run(const Flags& flags) {
  if (!flags.make.empty()) {
    MemoryExpertSource::RandomOptions shape;
    shape.layers = static_cast<int32_t>(flags.layers);
    shape.experts_per_layer = static_cast<int32_t>(flags.experts);
    shape.dim = 256;
    shape.ffn = flags.ffn;
    WriteRandomExperts(flags.make, shape);
    return absl::OkStatus();
  }
  ODMOE_ASSIGN_OR_RETURN(const auto store, ConnectSharedMemoryStore(flags.endpoint, flags.model));
  Tally tally;
  const absl::Time end = absl::Now() + absl::Seconds(flags.seconds);
  std::vector<std::thread> threads;
  for (int i = 0; i < flags.threads; ++i) {
    threads.emplace_back([&, i] { Thrash(*store, flags, i, end, tally); });
  }
  if (!flags.resize.empty()) ResizeAgainAndAgain(flags, end, tally);
  for (std::thread& thread : threads) thread.join();
  std::cout << "checked " << tally.checked << " wrong " << tally.wrong << " failed "
            << tally.failed << " resized " << tally.resized << " not " << tally.resizes_failed
            << " peak rss "
            << FormatBytes(PeakRssBytes()) << std::endl;
  if (tally.wrong > 0 || tally.failed > 0 || tally.checked == 0) {
    return absl::InternalError("wrong bytes, failed demands, or none at all");
  }
  if (tally.resizes_failed > 0 || (!flags.resize.empty() && tally.resized == 0)) {
    return absl::InternalError("resizes failed, or none was done");
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Demands random experts of a store in another process, and checks every byte.");
  app.add_option("--make", flags.make, "Write a random model to this directory, and end");
  app.add_option("--layers", flags.layers)->capture_default_str();
  app.add_option("--experts", flags.experts, "Of a layer")->capture_default_str();
  app.add_option("--ffn", flags.ffn)->capture_default_str();
  app.add_option("--endpoint", flags.endpoint);
  app.add_option("--model", flags.model);
  app.add_option("--seconds", flags.seconds)->capture_default_str();
  app.add_option("--threads", flags.threads)->capture_default_str();
  app.add_option("--batch", flags.batch)->capture_default_str();
  app.add_option("--pause-ms", flags.pause_ms)->capture_default_str();
  app.add_option("--resize", flags.resize, "Budgets to go round, one each five seconds");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Run(flags);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) { return odmoe::Main(argc, argv); }
