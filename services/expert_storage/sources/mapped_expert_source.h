// Experts read through the page cache.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "services/core/base/thread_pool.h"
#include "services/core/experts/expert_source.h"
#include "services/core/formats/model_directory.h"

namespace odmoe {

// Maps an expert's file, copies the expert out on a small pool, and unmaps it: mappings kept would
// count the page cache into this process's memory. The better source where free memory is plenty,
// since the page cache then holds what the budget does not. Thread-safe.
//
// A file cut short while it is copied faults; model directories are written by rename, never in
// place.
class MappedExpertSource final : public ExpertSource {
 public:
  explicit MappedExpertSource(ExpertRegistry registry, size_t threads = 4);

  const ExpertCatalog& catalog() const override { return registry_.catalog; }
  using ExpertSource::Read;
  void Read(ExpertId id, absl::Span<std::byte> destination,
            std::shared_ptr<const ReadControl> control, Done done) override;

 private:
  absl::Status Copy(ExpertId id, absl::Span<std::byte> destination) const;

  const ExpertRegistry registry_;
  ThreadPool pool_;
};

}  // namespace odmoe
