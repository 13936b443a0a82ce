#include "services/expert_storage/sources/expert_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

absl::Status OpenFailed(const std::string& path, int error) {
  const std::string message = absl::StrCat("cannot open ", path, ": ", std::strerror(error));
  switch (error) {
    case EINVAL:
      return absl::UnimplementedError(message);
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    default:
      // The registry promises the file.
      return absl::DataLossError(message);
  }
}

}  // namespace

OpenFile::~OpenFile() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<ExpertExtent> OpenExpert(const ExpertRegistry& registry, ExpertId id, int flags) {
  const int64_t index = registry.catalog.IndexOf(id);
  if (index < 0) {
    return absl::NotFoundError(absl::StrCat("no expert ", ExpertName(id), " in this model"));
  }
  const ExpertFile& file = registry.files[index];
  ExpertExtent extent;
  extent.path = file.path;
  extent.offset = file.data_offset;
  extent.bytes = registry.catalog.FindLayer(id.layer)->layout.bytes;
  struct stat info;
  // Before it is opened: a pipe would wait for a writer, a folder refuse the flags.
  if (stat(file.path.c_str(), &info) != 0) return OpenFailed(file.path, errno);
  if (!S_ISREG(info.st_mode)) {
    return absl::DataLossError(absl::StrCat(file.path, ": not a regular file"));
  }
  extent.file = OpenFile(open(file.path.c_str(), O_RDONLY | O_CLOEXEC | flags));
  if (extent.file.fd() < 0) return OpenFailed(file.path, errno);
  if (fstat(extent.file.fd(), &info) != 0) return OpenFailed(file.path, errno);
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  if (!S_ISREG(info.st_mode) || size < extent.offset || size - extent.offset < extent.bytes) {
    return absl::DataLossError(absl::StrCat(file.path, ": has ", size, " bytes, expected ",
                                            extent.bytes, " at offset ", extent.offset));
  }
  return extent;
}

}  // namespace odmoe
