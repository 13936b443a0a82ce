#include "converter/verify/check_items.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "converter/output/xxh3.h"
#include "services/core/base/available_cores.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/io/aligned_buffer.h"
#include "services/core/tensor/check_values.h"

namespace odmoe {
namespace {

constexpr size_t kChunkBytes = 4 * kMiB;
constexpr int kMaxThreads = 64;

// The largest number of whole blocks that fits the buffer.
size_t ChunkBytes(const CheckedExtent& extent) {
  // Formats without rows have no blocks either.
  const size_t block = extent.dtype ? std::max(1u, Info(*extent.dtype).block_bytes) : 1;
  return kChunkBytes / block * block;
}

absl::Status CheckValues(const RandomAccessFile& file, const CheckedExtent& extent, uint64_t done,
                         absl::Span<const std::byte> chunk) {
  if (!extent.dtype) return absl::OkStatus();
  const auto block = FindNotFinite(*extent.dtype, chunk);
  if (!block) return absl::OkStatus();
  const DTypeInfo& info = Info(*extent.dtype);
  return absl::DataLossError(absl::StrCat(
      file.path(), ": at offset ", extent.offset + done + *block * info.block_bytes, ": ",
      info.name, info.block_elements == 1 ? " element " : " block ",
      done / info.block_bytes + *block, " is NaN or infinite"));
}

// What the threads share.
class Checker {
 public:
  Checker(const std::vector<CheckedItem>& items, StepProgress& progress)
      : items_(items), progress_(progress), results_(items.size()) {}

  // Takes items until there are none, or all were told to stop.
  void Run() {
    auto buffer = AlignedBuffer::Allocate(kChunkBytes);
    if (!buffer.ok()) return Stop(buffer.status());
    Xxh3 hash;
    while (!stopped_.load(std::memory_order_relaxed)) {
      const size_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= items_.size()) return;
      results_[i] = Check(items_[i], buffer->span(), hash);
      if (absl::IsCancelled(results_[i])) Stop(results_[i]);
    }
  }

  absl::StatusOr<std::vector<absl::Status>> Results() {
    absl::MutexLock lock(&mutex_);
    if (!status_.ok()) return status_;
    return std::move(results_);
  }

 private:
  void Stop(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    status_.Update(status);
    stopped_ = true;
  }

  absl::Status Check(const CheckedItem& item, absl::Span<std::byte> buffer, Xxh3& hash) {
    uint64_t left = item.bytes();
    const absl::Status status = CheckBytes(item, buffer, hash, left);
    if (absl::IsCancelled(status)) return status;
    // The rest of a damaged item is not read, but done with.
    ODMOE_RETURN_IF_ERROR(progress_.Advance(item.name, left));
    return status;
  }

  absl::Status CheckBytes(const CheckedItem& item, absl::Span<std::byte> buffer,
                          Xxh3& hash, uint64_t& left) {
    ODMOE_ASSIGN_OR_RETURN(const std::shared_ptr<const RandomAccessFile> file, item.open());
    hash.Reset();
    absl::Status values;
    for (const CheckedExtent& extent : item.extents) {
      for (uint64_t done = 0; done < extent.bytes;) {
        const size_t count =
            static_cast<size_t>(std::min<uint64_t>(extent.bytes - done, ChunkBytes(extent)));
        const absl::Span<std::byte> chunk = buffer.first(count);
        ODMOE_RETURN_IF_ERROR(file->ReadAt(extent.offset + done, chunk));
        if (item.xxh3) hash.Update(chunk);
        if (values.ok()) values = CheckValues(*file, extent, done, chunk);
        done += count;
        left -= count;
        ODMOE_RETURN_IF_ERROR(progress_.Advance(item.name, count));
      }
    }
    // A wrong hash explains a wrong value, and not the other way round.
    const uint64_t got = hash.Digest();
    if (item.xxh3 && got != *item.xxh3) {
      return absl::DataLossError(absl::StrFormat(
          "%s: the XXH3 of %d bytes at offset %d is %016x, recorded was %016x", file->path(),
          item.bytes(), item.extents.empty() ? 0 : item.extents[0].offset, got, *item.xxh3));
    }
    return values;
  }

  const std::vector<CheckedItem>& items_;
  StepProgress& progress_;
  std::vector<absl::Status> results_;  // each written by the thread that has the item
  std::atomic<size_t> next_{0};
  std::atomic<bool> stopped_{false};
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

uint64_t CheckedItem::bytes() const {
  uint64_t bytes = 0;
  for (const CheckedExtent& extent : extents) bytes += extent.bytes;
  return bytes;
}

absl::StatusOr<std::vector<absl::Status>> CheckItems(const std::vector<CheckedItem>& items,
                                                     int concurrency, StepProgress& progress) {
  Checker checker(items, progress);
  const int cores = AvailableCores();
  const int wanted = std::clamp(concurrency > 0 ? concurrency : cores, 1, kMaxThreads);
  const size_t threads =
      std::min<size_t>(static_cast<size_t>(wanted), std::max<size_t>(items.size(), 1));
  std::vector<std::thread> others;
  for (size_t i = 1; i < threads; ++i) others.emplace_back([&] { checker.Run(); });
  checker.Run();
  for (std::thread& thread : others) thread.join();
  return checker.Results();
}

}  // namespace odmoe
