// What the sources read of a model that no cache holds, in bytes per second; and how long one with
// tens of thousands of experts takes to open.
//
//   store_cold_read write DIRECTORY --experts 256 --expert-mib 8 [--gguf]
//   store_cold_read read DIRECTORY --source direct --clients 4 --under-way 4
//   store_cold_read sparse DIRECTORY --layers 60 --experts 384
//   store_cold_read open DIRECTORY
#include <malloc.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/base/thread_annotations.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "bench/store/percentiles.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/model_index.h"
#include "services/expert_storage/arena/arena.h"
#include "services/expert_storage/arena/shared_region.h"
#include "services/expert_storage/sources/open_expert_source.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

struct Flags {
  std::string directory;
  int layers = 60;
  int experts = 256;
  int expert_mib = 8;
  bool gguf = false;
  bool shareable = false;
  std::string source = "direct";
  std::vector<std::string> also;
  int clients = 1;
  int under_way = 4;
  uint32_t depth = 0;
  std::string split;
};

void Write(const Flags& flags) {
  MemoryExpertSource::RandomOptions shape;
  shape.layers = 1;
  shape.experts_per_layer = flags.experts;
  // Three F32 matrices of dim x ffn.
  shape.dim = 1024;
  shape.ffn = int64_t{flags.expert_mib} * 1024 / 12;
  const auto experts = WriteRandomExperts(flags.directory, shape);
  if (flags.gguf) WriteGgufExperts(flags.directory, *experts);
}

// A model of Kimi-K2's shape whose files hold nothing.
void WriteSparse(const Flags& flags) {
  const ExpertLayout layout =
      MakeExpertLayout(DType::kQ4_K, DType::kQ6_K, DType::kQ4_K, 7168, 2048).value();
  std::vector<LayerExperts> layers;
  for (int layer = 1; layer <= flags.layers; ++layer) {
    layers.push_back({layer, flags.experts, layout, std::vector<uint64_t>(flags.experts, 7)});
  }
  const std::vector<ExpertFile> files(static_cast<size_t>(flags.layers) * flags.experts,
                                      {"", layout.bytes + 4096, 4096});
  const std::string digest = ModelDigest(layers);
  const ExpertCatalog catalog = ExpertCatalog::Create(digest, std::move(layers)).value();
  std::filesystem::create_directories(flags.directory + "/experts");
  WriteFileOrDie(flags.directory + "/" + kRegistryFile, EncodeExpertRegistry(catalog, files));
  for (int64_t i = 0; i < catalog.expert_count(); ++i) {
    const std::string path = ExpertPath(flags.directory, catalog.IdOf(i));
    WriteFileOrDie(path, "");
    std::filesystem::resize_file(path, layout.bytes + 4096);
  }
}

// Keeps `under_way` reads going until its share of the experts has been read once, in random order.
class Client {
 public:
  Client(ExpertSource& source, std::vector<int64_t> experts, absl::Span<std::byte> memory,
         int under_way)
      : source_(source), order_(std::move(experts)) {
    const uint64_t slot = SlotBytes(source.catalog().max_expert_bytes());
    for (int i = 0; i < under_way; ++i) buffers_.push_back(memory.subspan(i * slot, slot));
  }

  absl::Status Run() {
    absl::MutexLock lock(&mutex_);
    for (size_t i = 0; i < buffers_.size(); ++i) free_.push_back(i);
    const auto may_start = [this]()
                               ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !free_.empty(); };
    const auto all_free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return free_.size() == buffers_.size();
    };
    for (int64_t index : order_) {
      mutex_.Await(absl::Condition(&may_start));
      const size_t buffer = free_.back();
      free_.pop_back();
      mutex_.Unlock();
      Start(source_.catalog().IdOf(index), buffer);
      mutex_.Lock();
    }
    mutex_.Await(absl::Condition(&all_free));
    return status_;
  }

  const std::vector<int64_t>& nanoseconds() const { return nanoseconds_; }

 private:
  void Start(ExpertId id, size_t buffer) {
    const int64_t start = absl::GetCurrentTimeNanos();
    source_.Read(id, buffers_[buffer], [this, buffer, start](absl::Status status) {
      absl::MutexLock lock(&mutex_);
      status_.Update(status);
      nanoseconds_.push_back(absl::GetCurrentTimeNanos() - start);
      free_.push_back(buffer);
    });
  }

  ExpertSource& source_;
  const std::vector<int64_t> order_;
  std::vector<absl::Span<std::byte>> buffers_;
  absl::Mutex mutex_;
  std::vector<size_t> free_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<int64_t> nanoseconds_;
};

absl::StatusOr<SourceOptions> Options(const Flags& flags) {
  SourceOptions options;
  ODMOE_ASSIGN_OR_RETURN(options.kind, ParseSourceKind(flags.source));
  options.also = flags.also;
  if (flags.depth > 0) options.depth = flags.depth;
  if (!flags.split.empty()) {
    ODMOE_ASSIGN_OR_RETURN(options.request_bytes, ParseByteSize(flags.split));
  }
  return options;
}

void Describe(const SourceStats& stats) {
  std::cerr << absl::StreamFormat(
      "%s, %d requests of %d KiB, %.2f GB/s when measured, %d MiB registered; %d requests\n",
      stats.reader, stats.queue_depth, stats.request_bytes >> 10,
      stats.measured_bytes_per_second / 1e9, stats.registered_bytes >> 20, stats.requests);
}

absl::Status Read(const Flags& flags) {
  ODMOE_ASSIGN_OR_RETURN(const SourceOptions options, Options(flags));
  ODMOE_ASSIGN_OR_RETURN(const auto source, OpenExpertSource(flags.directory, options));
  // As a store would: one arena, which the source is told of.
  const uint64_t each = flags.under_way * SlotBytes(source->catalog().max_expert_bytes());
  SharedRegion::Options region;
  region.name = "arena";
  region.bytes = flags.clients * each;
  region.shareable = flags.shareable;
  region.huge_pages = HugePages::kAuto;
  ODMOE_ASSIGN_OR_RETURN(const auto shared, SharedRegion::Create(region));
  const absl::Span<std::byte> memory = shared->bytes();
  source->OfferMemory(memory);
  std::vector<int64_t> order(static_cast<size_t>(source->catalog().expert_count()));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  std::shuffle(order.begin(), order.end(), std::mt19937(7));
  std::vector<std::unique_ptr<Client>> clients;
  for (int c = 0; c < flags.clients; ++c) {
    std::vector<int64_t> share;
    for (size_t i = c; i < order.size(); i += flags.clients) share.push_back(order[i]);
    clients.push_back(std::make_unique<Client>(*source, std::move(share),
                                               memory.subspan(c * each, each),
                                               flags.under_way));
  }
  const absl::Time start = absl::Now();
  std::vector<std::thread> threads;
  std::vector<absl::Status> results(clients.size());
  for (size_t c = 0; c < clients.size(); ++c) {
    threads.emplace_back([&, c] { results[c] = clients[c]->Run(); });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  std::vector<int64_t> nanoseconds;
  for (size_t c = 0; c < clients.size(); ++c) {
    ODMOE_RETURN_IF_ERROR(results[c]);
    nanoseconds.insert(nanoseconds.end(), clients[c]->nanoseconds().begin(),
                       clients[c]->nanoseconds().end());
  }
  Describe(source->Stats());
  source->TakeBackMemory(memory);
  std::cerr << "an expert: " << Percentiles(nanoseconds) << "\n";
  // Alone on standard output, for a script: bytes per second, and the median in nanoseconds.
  std::cout << static_cast<int64_t>(double(source->catalog().total_bytes()) / seconds) << " "
            << nanoseconds[nanoseconds.size() / 2] << std::endl;
  return absl::OkStatus();
}

absl::Status Open(const Flags& flags) {
  SourceOptions options = SourceKind::kDirect;
  // Trials of files that hold nothing would tell nothing.
  options.depth = 16;
  options.request_bytes = kMiB;
  malloc_trim(0);
  const size_t before = mallinfo2().uordblks;
  const absl::Time start = absl::Now();
  ODMOE_ASSIGN_OR_RETURN(const auto source, OpenExpertSource(flags.directory, options));
  const double opened = absl::ToDoubleMilliseconds(absl::Now() - start);
  const int64_t count = source->catalog().expert_count();
  const double each = double(mallinfo2().uordblks - before) / double(count);
  std::cout << absl::StreamFormat("%d experts: open %.0f ms, %.0f bytes each, catalog included\n",
                                  count, opened, each);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app(
      "Reads every expert once; prints bytes per second and the median nanoseconds of an expert.");
  app.require_subcommand(1);
  CLI::App* write = app.add_subcommand("write", "Write a model of random experts");
  write->add_option("directory", flags.directory)->required();
  write->add_option("--experts", flags.experts)->capture_default_str();
  write->add_option("--expert-mib", flags.expert_mib)->capture_default_str();
  write->add_flag("--gguf", flags.gguf, "The same as DIRECTORY/experts.gguf too");
  CLI::App* sparse = app.add_subcommand("sparse", "Write a large model whose files hold nothing");
  sparse->add_option("directory", flags.directory)->required();
  sparse->add_option("--layers", flags.layers)->capture_default_str();
  sparse->add_option("--experts", flags.experts, "Of a layer")->capture_default_str();
  CLI::App* open = app.add_subcommand("open", "Time the opening of a model");
  open->add_option("directory", flags.directory)->required();
  CLI::App* read = app.add_subcommand("read", "Read it");
  read->add_option("directory", flags.directory)->required();
  read->add_option("--source", flags.source)->capture_default_str();
  read->add_option("--also", flags.also, "More directories with its files");
  read->add_option("--clients", flags.clients)->check(CLI::Range(1, 64))->capture_default_str();
  read->add_option("--under-way", flags.under_way, "Experts a client reads at once")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  read->add_flag("--shareable", flags.shareable, "Memory behind a memfd, as a service has it");
  read->add_option("--io-depth", flags.depth, "Measured if not given");
  read->add_option("--io-split", flags.split, "Measured if not given");
  CLI11_PARSE(app, argc, argv);
  if (write->parsed()) {
    Write(flags);
    return 0;
  }
  if (sparse->parsed()) {
    WriteSparse(flags);
    return 0;
  }
  const absl::Status status = open->parsed() ? Open(flags) : Read(flags);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) { return odmoe::Main(argc, argv); }
