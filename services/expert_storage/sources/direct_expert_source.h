// Experts read past the page cache.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/core/experts/expert_source.h"
#include "services/core/formats/model_directory.h"
#include "services/expert_storage/sources/block_reader.h"

namespace odmoe {

// O_DIRECT reads straight into the destination: no copy, and no page cache that would take the
// memory the budget is meant to bound. Thread-safe.
class DirectExpertSource final : public ExpertSource {
 public:
  struct Options {
    // Requests of up to 1 MiB under way. One NVMe drive is at its full rate from about 8.
    unsigned queue_depth = 16;
    // False: by pread on a few threads, as where io_uring is not to be had.
    bool io_uring = true;
    // False: fail where the file system knows no O_DIRECT, rather than read through the page cache.
    bool fall_back_to_page_cache = true;
  };

  // UNIMPLEMENTED: no O_DIRECT here, and no fall-back wanted.
  static absl::StatusOr<std::unique_ptr<DirectExpertSource>> Create(ExpertRegistry registry,
                                                                    const Options& options);

  const ExpertCatalog& catalog() const override { return registry_.catalog; }
  using ExpertSource::Read;
  void Read(ExpertId id, absl::Span<std::byte> destination,
            std::shared_ptr<const ReadControl> control, Done done) override;

  // What was to be had.
  bool past_page_cache() const { return open_flags_ != 0; }
  bool io_uring() const { return io_uring_; }

 private:
  DirectExpertSource(ExpertRegistry registry, int open_flags, bool io_uring,
                     std::unique_ptr<BlockReader> reader);
  const ExpertRegistry registry_;
  const int open_flags_;
  const bool io_uring_;
  const std::unique_ptr<BlockReader> reader_;
};

}  // namespace odmoe
