#include "services/expert_storage/sources/io_tuning.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "services/core/base/units.h"
#include "services/expert_storage/arena/shared_region.h"

namespace odmoe {
namespace {

constexpr uint64_t kMostUnderWay = 32 * kMiB;
// A shape must be faster than a larger one by this to be preferred: nothing else wants the processor
// during a trial, and with less under way the device waits sooner where something does, the hashing
// of what came for one.
constexpr double kWorthIt = 1.05;
// Of requests, each 16 under way; then of depth, with the best of these. A trial is short and its
// figure rough, so nothing is tried with so little under way that a fast disk would starve.
constexpr uint64_t kTrialRequestBytes[] = {kMiB, 512 * kKiB, 2 * kMiB};
constexpr uint32_t kTrialDepths[] = {8, 32, 64};
constexpr uint32_t kUsualDepth = 16;

// Reads pieces one after another with a reader, `depth` at once, until the time is over.
class Trial {
 public:
  Trial(const std::vector<TrialExtent>& extents, absl::Span<std::byte> memory, IoShape shape,
        std::unique_ptr<BlockReader> reader)
      : extents_(extents), memory_(memory), shape_(shape), reader_(std::move(reader)) {}

  // Bytes per second; nothing: a read failed.
  std::optional<double> Run(absl::Duration duration) {
    const absl::Time begin = absl::Now();
    end_ = begin + duration;
    for (uint32_t i = 0; i < shape_.depth; ++i) Start(i);
    const auto over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return under_way_ == 0; };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&over));
    if (failed_) return std::nullopt;
    return static_cast<double>(bytes_) / absl::ToDoubleSeconds(absl::Now() - begin);
  }

 private:
  // A piece of the next extent into the place of request `i`.
  void Start(uint32_t i) {
    BlockRead read;
    {
      absl::MutexLock lock(&mutex_);
      const TrialExtent& extent = extents_[next_ % extents_.size()];
      const uint64_t bytes = std::min(shape_.request_bytes, extent.bytes - offset_);
      read.extents.push_back({extent.file, extent.offset + offset_,
                              memory_.subspan(i * shape_.request_bytes, bytes), bytes});
      offset_ += bytes;
      if (offset_ == extent.bytes) {
        offset_ = 0;
        ++next_;
      }
      ++under_way_;
    }
    const uint64_t bytes = read.extents[0].into.size();
    read.done = [this, i, bytes](absl::Status status) { Done(i, bytes, status); };
    reader_->Read(std::move(read));
  }

  void Done(uint32_t i, uint64_t bytes, const absl::Status& status) {
    bool more;
    {
      absl::MutexLock lock(&mutex_);
      failed_ = failed_ || !status.ok();
      bytes_ += bytes;
      more = !failed_ && absl::Now() < end_;
    }
    if (more) Start(i);
    absl::MutexLock lock(&mutex_);
    --under_way_;
  }

  const std::vector<TrialExtent>& extents_;
  const absl::Span<std::byte> memory_;
  const IoShape shape_;
  absl::Time end_;
  absl::Mutex mutex_;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;  // extent
  uint64_t offset_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<BlockReader> reader_;  // first to go: it waits for its reads
};

}  // namespace

double MeasureRate(const std::vector<TrialExtent>& extents, absl::Span<std::byte> memory,
                   IoShape shape, std::unique_ptr<BlockReader> reader, absl::Duration duration) {
  if (extents.empty() || memory.size() < shape.bytes()) return 0;
  reader->OfferMemory(memory);
  Trial trial(extents, memory, shape, std::move(reader));
  return trial.Run(duration).value_or(0);
}

IoTuning MeasureIo(const std::vector<TrialExtent>& extents,
                   const std::function<std::unique_ptr<BlockReader>(IoShape)>& make_reader,
                   absl::Duration limit) {
  SharedRegion::Options options;
  options.name = "odmoe-io-trial";
  options.bytes = kMostUnderWay;
  options.huge_pages = HugePages::kAuto;
  const auto memory = SharedRegion::Create(options);
  if (extents.empty() || !memory.ok()) return {};
  const absl::Duration each =
      limit / static_cast<double>(std::size(kTrialRequestBytes) + std::size(kTrialDepths));
  IoTuning best;
  bool failed = false;
  const auto attempt = [&](IoShape shape) {
    std::unique_ptr<BlockReader> reader;
    if (failed || shape.bytes() > kMostUnderWay) return;
    if ((reader = make_reader(shape)) == nullptr) return;
    const double rate =
        MeasureRate(extents, (*memory)->bytes(), shape, std::move(reader), each);
    if (rate == 0) {
      failed = true;
      return;
    }
    const bool smaller = shape.bytes() < best.shape.bytes();
    if (rate > best.bytes_per_second * (smaller ? kWorthIt : 1.0)) best = {shape, rate};
  };
  for (uint64_t bytes : kTrialRequestBytes) attempt({kUsualDepth, bytes});
  const uint64_t request_bytes = best.shape.request_bytes;
  for (uint32_t depth : kTrialDepths) attempt({depth, request_bytes});
  return failed ? IoTuning{} : best;
}

}  // namespace odmoe
