// Experts that lie in this process's memory: for tests and toy models.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/core/experts/expert_source.h"

namespace odmoe {

// Serves experts from its own memory; `done` runs before Read returns. Thread-safe.
class MemoryExpertSource final : public ExpertSource {
 public:
  // `experts` by ExpertCatalog::IndexOf. INVALID_ARGUMENT: not one entry an expert, or an entry
  // whose size is not its layout's.
  static absl::StatusOr<std::unique_ptr<MemoryExpertSource>> Create(
      ExpertCatalog catalog, std::vector<std::vector<std::byte>> experts);

  // The shape of a random model. Layer numbers run from `first_layer` on.
  struct RandomOptions {
    int32_t first_layer = 0;
    int32_t layers = 2;
    int32_t experts_per_layer = 4;
    int64_t dim = 32;
    int64_t ffn = 64;
    DType dtype = DType::kF32;
    uint64_t seed = 1;
  };
  // Random bytes, the same for the same options on every machine, with their hashes in the catalog.
  // As numbers they are noise and may be NaN. INVALID_ARGUMENT: a shape no layout has.
  static absl::StatusOr<std::unique_ptr<MemoryExpertSource>> Random(const RandomOptions& options);

  const ExpertCatalog& catalog() const override { return catalog_; }
  using ExpertSource::Read;
  void Read(ExpertId id, absl::Span<std::byte> destination,
            std::shared_ptr<const ReadControl> control, Done done) override;

  // The true bytes, for comparing. Requires an id of the catalog.
  absl::Span<const std::byte> Bytes(ExpertId id) const;

 private:
  MemoryExpertSource(ExpertCatalog catalog, std::vector<std::vector<std::byte>> experts);
  const ExpertCatalog catalog_;
  const std::vector<std::vector<std::byte>> experts_;
};

}  // namespace odmoe
