// What the sources read of a model that no cache holds, in bytes per second.
//
//   store_cold_read write DIRECTORY --experts 256 --expert-mib 8
//   store_cold_read read DIRECTORY --source direct --under-way 4
#include <algorithm>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "bench/store/percentiles.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/aligned_buffer.h"
#include "services/expert_storage/arena/arena.h"
#include "services/expert_storage/sources/open_expert_source.h"
#include "tests/support/expert_directory.h"

namespace odmoe {
namespace {

struct Flags {
  std::string directory;
  int experts = 256;
  int expert_mib = 8;
  std::string source = "direct";
  int under_way = 4;
};

void Write(const Flags& flags) {
  MemoryExpertSource::RandomOptions shape;
  shape.layers = 1;
  shape.experts_per_layer = flags.experts;
  // Three F32 matrices of dim x ffn.
  shape.dim = 1024;
  shape.ffn = int64_t{flags.expert_mib} * 1024 / 12;
  WriteRandomExperts(flags.directory, shape);
}

// Keeps `under_way` reads going until every expert has been read once, in random order.
class Reader {
 public:
  Reader(ExpertSource& source, int under_way) : source_(source) {
    for (int64_t i = 0; i < source.catalog().expert_count(); ++i) order_.push_back(i);
    std::shuffle(order_.begin(), order_.end(), std::mt19937(7));
    for (int i = 0; i < under_way; ++i) {
      buffers_.push_back(
          AlignedBuffer::Allocate(SlotBytes(source.catalog().max_expert_bytes())).value());
    }
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

  std::vector<int64_t>& nanoseconds() { return nanoseconds_; }

 private:
  void Start(ExpertId id, size_t buffer) {
    const int64_t start = absl::GetCurrentTimeNanos();
    source_.Read(id, buffers_[buffer].span(), [this, buffer, start](absl::Status status) {
      absl::MutexLock lock(&mutex_);
      status_.Update(status);
      nanoseconds_.push_back(absl::GetCurrentTimeNanos() - start);
      free_.push_back(buffer);
    });
  }

  ExpertSource& source_;
  std::vector<int64_t> order_;
  std::vector<AlignedBuffer> buffers_;
  absl::Mutex mutex_;
  std::vector<size_t> free_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<int64_t> nanoseconds_;
};

absl::Status Read(const Flags& flags) {
  ODMOE_ASSIGN_OR_RETURN(const SourceKind kind, ParseSourceKind(flags.source));
  ODMOE_ASSIGN_OR_RETURN(const auto source, OpenExpertSource(flags.directory, kind));
  Reader reader(*source, flags.under_way);
  const absl::Time start = absl::Now();
  ODMOE_RETURN_IF_ERROR(reader.Run());
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  const double bytes = double(source->catalog().total_bytes());
  std::cerr << "an expert: " << Percentiles(reader.nanoseconds()) << "\n";
  // Alone on standard output, for a script.
  std::cout << static_cast<int64_t>(bytes / seconds) << std::endl;
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Reads every expert once; prints bytes per second.");
  app.require_subcommand(1);
  CLI::App* write = app.add_subcommand("write", "Write a model of random experts");
  write->add_option("directory", flags.directory)->required();
  write->add_option("--experts", flags.experts)->capture_default_str();
  write->add_option("--expert-mib", flags.expert_mib)->capture_default_str();
  CLI::App* read = app.add_subcommand("read", "Read it");
  read->add_option("directory", flags.directory)->required();
  read->add_option("--source", flags.source)->capture_default_str();
  read->add_option("--under-way", flags.under_way, "Experts read at once")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (write->parsed()) {
    Write(flags);
    return 0;
  }
  const absl::Status status = Read(flags);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) { return odmoe::Main(argc, argv); }
