// In which files an expert's bytes lie, and where.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/model_directory.h"

namespace odmoe {

// A run of a file's bytes, and where in the expert it belongs.
struct FileExtent {
  uint32_t file = 0;           // numbered from 0
  uint64_t file_offset = 0;
  uint64_t expert_offset = 0;
  uint64_t bytes = 0;
};
// In the order of the expert's bytes, which they cover without a gap.
using FileExtents = absl::InlinedVector<FileExtent, 1>;

// What a file was when the model was opened; all zero: not known.
struct FileStamp {
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
};

// Immutable, thread-safe. Takes few bytes an expert: a large model has tens of thousands.
class ExpertPlaces {
 public:
  virtual ~ExpertPlaces() = default;

  const ExpertCatalog& catalog() const { return catalog_; }
  // `expert` is an index of the catalog.
  virtual FileExtents Extents(int64_t expert) const = 0;
  // Relative to the model's folder.
  virtual std::string FileName(uint32_t file) const = 0;
  // Known where the experts' hashes are not: what else tells that a file has been written to.
  virtual FileStamp Stamp(uint32_t file) const = 0;

 protected:
  explicit ExpertPlaces(ExpertCatalog catalog) : catalog_(std::move(catalog)) {}

 private:
  const ExpertCatalog catalog_;
};

// Experts in files of their own. The registry's paths are below `model_directory`.
std::unique_ptr<ExpertPlaces> PlacesInDirectory(ExpertRegistry registry,
                                                const std::string& model_directory);

// Experts in the tensors of a GGUF model. Its catalog has no hashes, since the format has none, and
// its digest names the headers, the sizes and a sample of the experts' bytes.
// INVALID_ARGUMENT: a model without routed experts. Errors of FindExpertLayers and of reading.
absl::StatusOr<std::unique_ptr<ExpertPlaces>> PlacesInGguf(const GgufModel& model);

}  // namespace odmoe
