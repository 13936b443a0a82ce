// Experts read past the page cache.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/core/base/thread_pool.h"
#include "services/core/experts/expert_source.h"
#include "services/expert_storage/sources/block_reader.h"
#include "services/expert_storage/sources/expert_disk.h"
#include "services/expert_storage/sources/expert_places.h"
#include "services/expert_storage/sources/hash_book.h"
#include "services/expert_storage/sources/io_tuning.h"

namespace odmoe {

// O_DIRECT reads straight into the destination: no copy where the file's bytes are aligned, and no
// page cache that would take the memory the budget is meant to bound. Bytes are hashed while they
// arrive. Thread-safe.
//
// With several directories an expert is read from the one that has the fewest bytes under way of
// those that hold it; so each may hold some of the files, or all. Where a directory's copy fails or
// is corrupt, the next one's answers.
class DirectExpertSource final : public ExpertSource {
 public:
  struct Options {
    // The model's own first. At most kMostDirectories.
    std::vector<std::string> directories;
    // False: by pread on a few threads, as where io_uring is not to be had.
    bool io_uring = true;
    // False: fail where the file system knows no O_DIRECT, rather than read through the page cache.
    bool fall_back_to_page_cache = true;
    // What is not given is measured, once a file system and process; not at all for models that
    // are read in a moment.
    std::optional<uint32_t> depth;
    std::optional<uint64_t> request_bytes;  // a multiple of 4096, 4 KiB to 64 MiB
    absl::Duration measure = absl::Milliseconds(300);
    size_t open_files = 0;  // kept open in each directory; 0: by the process's limit
    // How long an open that finds no free descriptor or memory is tried again.
    absl::Duration open_patience = absl::Seconds(2);
    // For tests: what reads, instead of the above.
    std::function<std::unique_ptr<BlockReader>(IoShape)> make_reader;
  };
  static constexpr size_t kMostDirectories = 16;

  // UNIMPLEMENTED: no O_DIRECT here, and no fall-back wanted. INVALID_ARGUMENT: a model without
  // experts, too many directories, or a depth or size nobody can want.
  static absl::StatusOr<std::unique_ptr<DirectExpertSource>> Create(
      std::unique_ptr<ExpertPlaces> places, Options options);
  ~DirectExpertSource() override;

  const ExpertCatalog& catalog() const override { return places_->catalog(); }
  using ExpertSource::Read;
  void Read(ExpertId id, absl::Span<std::byte> destination,
            std::shared_ptr<const ReadControl> control, Done done) override;
  uint64_t desired_bytes_under_way() const override;
  void OfferMemory(absl::Span<std::byte> memory) override;
  void TakeBackMemory(absl::Span<std::byte> memory) override;
  bool checks_hashes() const override { return true; }
  SourceStats Stats() const override;

 private:
  struct Job;
  using JobPtr = std::shared_ptr<Job>;
  // A device, which one or more directories are on.
  struct Device {
    uint64_t number = 0;
    IoTuning tuning;
    bool io_uring = false;
    bool measured = false;
    ExpertDisk* first = nullptr;  // a directory that is on it
    std::unique_ptr<BlockReader> reader;
  };
  struct Disk {
    std::unique_ptr<ExpertDisk> files;
    Device* device = nullptr;
  };

  DirectExpertSource(std::unique_ptr<ExpertPlaces> places, Options options);
  absl::Status AddDirectory(const std::string& directory);
  Device* DeviceOf(ExpertDisk& disk);
  std::unique_ptr<BlockReader> MakeReader(const Device& device, IoShape shape) const;
  void ChooseWay(absl::Span<std::byte> memory);
  std::vector<TrialExtent> TrialExtents(ExpertDisk& disk) const;

  int Choose(const Job& job) const;
  void Attempt(JobPtr job);
  void OpenThenStart(JobPtr job, int disk);
  void Start(JobPtr job, int disk, ExpertDisk::Files files);
  void OnRead(JobPtr job, int disk, absl::Status status);
  void Settle(JobPtr job, int disk, absl::Status status);
  void TryNext(JobPtr job, int disk, absl::Status status);
  void Finish(Job& job, absl::Status status);

  const std::unique_ptr<ExpertPlaces> places_;
  const Options options_;
  HashBook hashes_;
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> answered_by_another_{0};
  std::atomic<uint64_t> open_retries_{0};
  std::atomic<bool> way_chosen_{false};  // or it is too late to
  absl::Mutex mutex_;
  int64_t jobs_ ABSL_GUARDED_BY(mutex_) = 0;  // reads under way
  // Those with threads last: a thread may still be coming back from its last read's end.
  std::vector<Disk> disks_;
  std::vector<std::unique_ptr<Device>> devices_;
  ThreadPool hashers_;
};

}  // namespace odmoe
