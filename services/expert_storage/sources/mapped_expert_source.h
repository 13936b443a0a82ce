// Experts read through the page cache.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/core/base/thread_pool.h"
#include "services/core/experts/expert_source.h"
#include "services/expert_storage/sources/expert_disk.h"
#include "services/expert_storage/sources/expert_places.h"
#include "services/expert_storage/sources/hash_book.h"

namespace odmoe {

// Maps an expert's bytes, copies them out on a small pool, and unmaps them: mappings kept would
// count the page cache into this process's memory. The better source where free memory is plenty,
// since the page cache then holds what the budget does not. Prefetches take their turn after what
// was asked for before them, and one that is cancelled is given up before it is begun. Thread-safe.
class MappedExpertSource final : public ExpertSource {
 public:
  // INVALID_ARGUMENT: a model without experts.
  static absl::StatusOr<std::unique_ptr<MappedExpertSource>> Create(
      std::unique_ptr<ExpertPlaces> places, std::string directory, size_t threads = 4);

  const ExpertCatalog& catalog() const override { return places_->catalog(); }
  using ExpertSource::Read;
  void Read(ExpertId id, absl::Span<std::byte> destination,
            std::shared_ptr<const ReadControl> control, Done done) override;
  bool checks_hashes() const override { return true; }
  SourceStats Stats() const override;

 private:
  MappedExpertSource(std::unique_ptr<ExpertPlaces> places, std::string directory, size_t threads);
  absl::Status ReadNow(ExpertId id, absl::Span<std::byte> destination);
  absl::Status Copy(int64_t expert, absl::Span<std::byte> destination);

  const std::unique_ptr<ExpertPlaces> places_;
  ExpertDisk disk_;
  HashBook hashes_;
  ThreadPool pool_;  // last: its tasks use the rest
};

}  // namespace odmoe
