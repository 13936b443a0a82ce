// What a quiet tenant notices of others: of one that thrashes, and of reads that hang.
//
//   store_tenants write DIRECTORY
//   store_tenants thrash DIRECTORY       alone; beside a thrasher; with a disk share; with a quota
//   store_tenants hang DIRECTORY         alone; while reads of other experts hang
//
// The quiet tenant is the caller in this process: token after token, 8 experts of each layer, with
// a heavy head. The thrasher asks for whatever comes, as much as one client may. A row takes
// --seconds and the opening of a store: less than a minute in all.
#include <algorithm>
#include <atomic>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "bench/store/percentiles.h"
#include "services/core/base/status_macros.h"
#include "services/expert_storage/open_expert_store.h"
#include "tests/support/expert_directory.h"
#include "tests/support/faulty_expert_source.h"

namespace odmoe {
namespace {

constexpr int32_t kLayers = 8;
constexpr int32_t kExpertsPerLayer = 64;
constexpr int32_t kUsed = 8;
// Of each layer, that the quiet tenant never asks for: reads of these hang.
constexpr int32_t kSpared = 8;

struct BenchFlags {
  std::string directory;
  double seconds = 8.0;
  std::string budget = "25%";
  int hung = 3;
};

void WriteModel(const BenchFlags& flags) {
  MemoryExpertSource::RandomOptions shape;
  shape.layers = kLayers;
  shape.experts_per_layer = kExpertsPerLayer;
  shape.dim = 512;  // 3 MiB of F32 an expert, 1.5 GiB in all
  shape.ffn = 512;
  WriteRandomExperts(flags.directory, shape);
}

absl::StatusOr<std::unique_ptr<CachingExpertStore>> OpenBenchStore(
    const BenchFlags& flags, const std::vector<std::string>& tenants,
    std::shared_ptr<ReadFaults> faults) {
  OpenStoreOptions options;
  ODMOE_ASSIGN_OR_RETURN(options.budget, ParseBudget(flags.budget));
  std::vector<TenantSpec> specs;
  for (const std::string& text : tenants) {
    ODMOE_ASSIGN_OR_RETURN(specs.emplace_back(), ParseTenant(text));
  }
  ODMOE_ASSIGN_OR_RETURN(options.tenants, TenantTable::Create(specs, false));
  ODMOE_ASSIGN_OR_RETURN(auto source, OpenExpertSource(flags.directory, SourceKind::kDirect));
  if (faults != nullptr) {
    source = std::make_unique<FaultyExpertSource>(std::move(source), std::move(faults));
  }
  return MakeExpertStore(std::move(source), options, kUsed);
}

// Asks for whatever comes until it ends.
class Thrasher {
 public:
  Thrasher(CachingExpertStore& store, const std::string& tenant)
      : store_(store), client_(store.AttachClient("thrasher", tenant).value()),
        thread_([this] { Run(); }) {}
  ~Thrasher() {
    stop_.store(true);
    thread_.join();
    store_.EndSession(client_);
  }

 private:
  void Run() {
    std::mt19937 random(3);
    PinPage page = client_->page;
    while (!stop_.load()) {
      Demand demand;
      demand.client = client_;
      const int64_t layer = static_cast<int64_t>(random() % kLayers);
      const size_t count = std::min<size_t>(kExpertsPerLayer, store_.MaxBatchOf(client_->tenant));
      for (int64_t e = 0; e < kExpertsPerLayer; ++e) {
        demand.experts.push_back(layer * kExpertsPerLayer + e);
      }
      std::shuffle(demand.experts.begin(), demand.experts.end(), random);
      demand.experts.resize(count);
      struct Answers {
        absl::Mutex mutex;
        size_t left;
        std::vector<uint32_t> slots;
      };
      auto answers = std::make_shared<Answers>();
      answers->left = count;
      demand.deliver = [answers](size_t, absl::StatusOr<uint32_t> slot) {
        absl::MutexLock lock(&answers->mutex);
        --answers->left;
        if (slot.ok()) answers->slots.push_back(*slot);
      };
      store_.Serve(std::move(demand));
      absl::MutexLock lock(&answers->mutex);
      const auto done = [&answers] { return answers->left == 0; };
      answers->mutex.Await(absl::Condition(&done));
      for (uint32_t slot : answers->slots) page.Unpin(slot);
    }
  }

  CachingExpertStore& store_;
  const std::shared_ptr<StoreClient> client_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Token after token, 8 experts of each layer.
class QuietTenant {
 public:
  explicit QuietTenant(CachingExpertStore& store) : store_(store) {}

  // For so long; what it measured before is forgotten.
  absl::Status Run(double seconds) {
    layer_ns_.clear();
    hits_ = 0;
    for (const absl::Time end = absl::Now() + absl::Seconds(seconds); absl::Now() < end;) {
      for (int32_t layer = 0; layer < kLayers; ++layer) ODMOE_RETURN_IF_ERROR(RunLayer(layer));
    }
    return absl::OkStatus();
  }

  // A row of what it measured; its p99, compared with that of a run before if there is one.
  int64_t Print(const std::string& name, int64_t p99_before) {
    const double asked = static_cast<double>(layer_ns_.size() * kUsed);
    const std::string percentiles = Percentiles(layer_ns_);
    const int64_t p99 = layer_ns_[layer_ns_.size() * 99 / 100];
    std::cout << absl::StrFormat("%-32s hits %5.1f %%, a layer: %s", name,
                                 100.0 * static_cast<double>(hits_) / asked, percentiles);
    if (p99_before > 0) {
      std::cout << absl::StrFormat("; p99 %.2f x", static_cast<double>(p99) /
                                                       static_cast<double>(p99_before));
    }
    std::cout << std::endl;
    return p99;
  }

 private:
  absl::Status RunLayer(int32_t layer) {
    std::vector<ExpertId> ids;
    while (ids.size() < kUsed) {
      const int32_t rank = popularity_(random_);
      if (rank >= kExpertsPerLayer - kSpared) continue;
      const ExpertId id = {layer, (rank + 7 * layer) % kExpertsPerLayer};
      if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
    }
    const absl::Time start = absl::Now();
    ODMOE_ASSIGN_OR_RETURN(const auto batch, store_.Acquire(ids, start + absl::Minutes(1)));
    for (size_t i = 0; i < ids.size(); ++i) ODMOE_RETURN_IF_ERROR(batch->Wait(i).status());
    layer_ns_.push_back(absl::ToInt64Nanoseconds(absl::Now() - start));
    hits_ += batch->hits();
    return absl::OkStatus();
  }

  CachingExpertStore& store_;
  std::mt19937 random_{11};
  std::geometric_distribution<int32_t> popularity_{0.1};
  std::vector<int64_t> layer_ns_;
  uint64_t hits_ = 0;
};

absl::Status Thrash(const BenchFlags& flags) {
  struct Setting {
    const char* name;
    bool thrasher;
    std::vector<std::string> tenants;
  };
  const std::vector<Setting> settings = {
      {"alone", false, {}},
      {"beside a thrasher, same tenant", true, {}},
      {"thrasher its own tenant", true, {"thrash"}},
      {"thrasher with disk=0.25", true, {"thrash:disk=0.25"}},
      {"thrasher with cache=20%", true, {"thrash:cache=20%"}},
      {"thrasher with both", true, {"thrash:cache=20%:disk=0.25"}},
  };
  int64_t alone = 0;
  for (const Setting& setting : settings) {
    ODMOE_ASSIGN_OR_RETURN(const auto store, OpenBenchStore(flags, setting.tenants, nullptr));
    QuietTenant quiet(*store);
    ODMOE_RETURN_IF_ERROR(quiet.Run(flags.seconds / 4));
    std::unique_ptr<Thrasher> thrasher;
    if (setting.thrasher) thrasher = std::make_unique<Thrasher>(*store, "thrash");
    ODMOE_RETURN_IF_ERROR(quiet.Run(flags.seconds / 4));  // until the cache is what it comes to
    ODMOE_RETURN_IF_ERROR(quiet.Run(flags.seconds / 2));
    const int64_t p99 = quiet.Print(setting.name, alone);
    if (!setting.thrasher) alone = p99;
  }
  return absl::OkStatus();
}

absl::Status Hang(const BenchFlags& flags) {
  int64_t healthy = 0;
  for (const int hung : {0, flags.hung, 0, flags.hung}) {
    auto faults = std::make_shared<ReadFaults>();
    ODMOE_ASSIGN_OR_RETURN(const auto store, OpenBenchStore(flags, {}, faults));
    const auto client = store->AttachClient("meets the bad spots", "").value();
    // Also where something fails: the store waits for its reads.
    const absl::Cleanup release = [&faults] { faults->Release(); };
    QuietTenant quiet(*store);
    ODMOE_RETURN_IF_ERROR(quiet.Run(flags.seconds / 4));
    Demand demand;
    demand.client = client;
    demand.deadline = absl::Now() + absl::Milliseconds(500);
    demand.deliver = [](size_t, const absl::StatusOr<uint32_t>&) {};
    for (int32_t i = 0; i < hung; ++i) {
      const ExpertId id = {i % kLayers, (7 * (i % kLayers) + 63 - i / kLayers) % kExpertsPerLayer};
      faults->Hang(id);
      demand.experts.push_back(store->catalog().IndexOf(id));
    }
    if (hung > 0) store->Serve(std::move(demand));
    // From the moment on, so with the time that the store takes to see that they hang.
    ODMOE_RETURN_IF_ERROR(quiet.Run(flags.seconds * 3 / 4));
    const int64_t p99 = quiet.Print(absl::StrFormat("%d reads hang", hung),
                                    hung > 0 ? healthy : 0);
    if (hung == 0) healthy = p99;
    store->EndSession(client);
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("Times what a tenant notices of another one, and of reads that hang");
  app.require_subcommand(1);
  BenchFlags flags;
  const auto add = [&](const char* name, const char* help) {
    CLI::App* command = app.add_subcommand(name, help);
    command->add_option("directory", flags.directory, "Model of random experts")->required();
    command->add_option("--seconds", flags.seconds, "Of each row")->capture_default_str();
    command->add_option("--budget", flags.budget, "Memory for experts")->capture_default_str();
    command->add_option("--hung", flags.hung, "Reads that hang")
        ->check(CLI::Range(1, kLayers * kSpared))
        ->capture_default_str();
    return command;
  };
  CLI::App* write = add("write", "Write the model");
  CLI::App* thrash = add("thrash", "Beside a tenant that thrashes");
  add("hang", "While reads hang");
  CLI11_PARSE(app, argc, argv);
  if (write->parsed()) {
    WriteModel(flags);
    return 0;
  }
  std::cout << CpuName() << "\n";
  const absl::Status status = thrash->parsed() ? Thrash(flags) : Hang(flags);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) { return odmoe::Main(argc, argv); }
