// From a model's path to a source of its experts.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/experts/expert_source.h"
#include "services/core/experts/source_kind.h"
#include "services/expert_storage/sources/expert_places.h"

namespace odmoe {

// What is not given is found out.
struct SourceOptions {
  SourceOptions() = default;
  SourceOptions(SourceKind its_kind) : kind(its_kind) {}  // NOLINT: a kind is all most have

  SourceKind kind = SourceKind::kAuto;
  // More directories that hold some of the model's files, or all, under the same names as in the
  // first. Direct reads only.
  std::vector<std::string> also;
  std::optional<uint32_t> depth;          // requests under way
  std::optional<uint64_t> request_bytes;  // of one, a multiple of 4096
};

// `path`: a model directory, a GGUF file, or any shard of a split one, which is served as it is.
// UNIMPLEMENTED: never for kAuto, which falls back to mmap; kDirect falls back to the page cache
// where there is no O_DIRECT. INVALID_ARGUMENT: options that contradict themselves. Errors of
// ReadExpertRegistry, GgufModel::Open and FindExpertLayers. `in_use`, if not null, is set to what
// was taken.
absl::StatusOr<std::unique_ptr<ExpertSource>> OpenExpertSource(const std::string& path,
                                                               const SourceOptions& options,
                                                               SourceKind* in_use = nullptr);

// Where a model's experts lie, and the folder their files' names are relative to.
struct PlacedModel {
  std::unique_ptr<ExpertPlaces> places;
  std::string directory;
};
absl::StatusOr<PlacedModel> FindPlaces(const std::string& path);

}  // namespace odmoe
