#include "services/expert_storage/sources/open_expert_source.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/model_directory.h"
#include "services/core/io/file.h"
#include "services/expert_storage/sources/direct_expert_source.h"
#include "services/expert_storage/sources/mapped_expert_source.h"

namespace odmoe {
namespace {

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::StatusOr<std::unique_ptr<ExpertSource>> OpenDirect(PlacedModel& model,
                                                         const SourceOptions& options,
                                                         bool fall_back_to_page_cache) {
  DirectExpertSource::Options direct;
  direct.directories = {model.directory};
  direct.directories.insert(direct.directories.end(), options.also.begin(), options.also.end());
  direct.fall_back_to_page_cache = fall_back_to_page_cache;
  direct.depth = options.depth;
  direct.request_bytes = options.request_bytes;
  return DirectExpertSource::Create(std::move(model.places), std::move(direct));
}

}  // namespace

absl::StatusOr<PlacedModel> FindPlaces(const std::string& path) {
  struct stat info;
  PlacedModel model;
  if (stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode)) {
    ODMOE_ASSIGN_OR_RETURN(const auto gguf, GgufModel::Open(PosixFileSystem(), path));
    ODMOE_ASSIGN_OR_RETURN(model.places, PlacesInGguf(*gguf));
    model.directory = FolderOf(path);
    return model;
  }
  ODMOE_ASSIGN_OR_RETURN(ExpertRegistry registry, ReadExpertRegistry(path));
  model.places = PlacesInDirectory(std::move(registry), path);
  model.directory = path;
  return model;
}

absl::StatusOr<std::unique_ptr<ExpertSource>> OpenExpertSource(const std::string& path,
                                                               const SourceOptions& options,
                                                               SourceKind* in_use) {
  const bool several = !options.also.empty();
  if (options.kind == SourceKind::kMapped && several) {
    return absl::InvalidArgumentError(
        "experts in several directories are read by the direct source, not by mmap");
  }
  ODMOE_ASSIGN_OR_RETURN(PlacedModel model, FindPlaces(path));
  SourceKind taken = options.kind == SourceKind::kMapped ? SourceKind::kMapped
                                                         : SourceKind::kDirect;
  absl::StatusOr<std::unique_ptr<ExpertSource>> source;
  if (taken == SourceKind::kDirect) {
    const bool fall_back = options.kind == SourceKind::kDirect || several;
    source = OpenDirect(model, options, fall_back);
    if (absl::IsUnimplemented(source.status())) {
      taken = SourceKind::kMapped;
      ODMOE_ASSIGN_OR_RETURN(model, FindPlaces(path));
    }
  }
  if (taken == SourceKind::kMapped) {
    source = MappedExpertSource::Create(std::move(model.places), model.directory);
  }
  if (in_use != nullptr) *in_use = taken;
  return source;
}

}  // namespace odmoe
