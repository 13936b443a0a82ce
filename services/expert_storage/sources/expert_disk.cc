#include "services/expert_storage/sources/expert_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/aligned_buffer.h"

namespace odmoe {
namespace {

// Opening waits for the disk where names are not in memory; as many names at once as a layer asks.
constexpr size_t kOpeners = 4;

int64_t ModifiedNs(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

}  // namespace

ExpertDisk::ExpertDisk(const ExpertPlaces& places, std::string directory, const Options& options)
    : places_(places),
      directory_(std::move(directory)),
      options_(options),
      files_(options.open_files, options.direct ? O_DIRECT : 0),
      absent_(static_cast<size_t>(places.catalog().expert_count())),
      openers_(kOpeners) {}

absl::StatusOr<bool> ExpertDisk::ReadsDirectly(const ExpertPlaces& places,
                                               const std::string& directory) {
  // A file that is lost is that expert's affair, not the model's; a directory may hold only some.
  constexpr int64_t kTried = 64;
  const int64_t count = std::min(kTried, places.catalog().expert_count());
  FileCache cache(1, O_DIRECT);
  for (int64_t expert = 0; expert < count; ++expert) {
    const FileExtent extent = places.Extents(expert)[0];
    const auto file =
        cache.Open(extent.file, absl::StrCat(directory, "/", places.FileName(extent.file)));
    if (absl::IsUnimplemented(file.status())) return false;
    if (absl::IsDataLoss(file.status()) || absl::IsNotFound(file.status())) continue;
    ODMOE_RETURN_IF_ERROR(file.status());
    // Some file systems accept the flag and refuse the read.
    ODMOE_ASSIGN_OR_RETURN(AlignedBuffer block, AlignedBuffer::Allocate(kDirectIoAlignment));
    const uint64_t offset = extent.file_offset & ~(kDirectIoAlignment - 1);
    const ssize_t n =
        pread((*file)->fd.get(), block.data(), block.size(), static_cast<off_t>(offset));
    return n >= 0 || errno != EINVAL;
  }
  return true;
}

std::string ExpertDisk::PathOf(uint32_t file) const {
  return absl::StrCat(directory_, "/", places_.FileName(file));
}

ExpertDisk::Files ExpertDisk::OpenAtOnce(const FileExtents& extents) {
  Files files;
  for (size_t i = 0; i < extents.size(); ++i) {
    const uint32_t number = extents[i].file;
    if (i > 0 && number == extents[i - 1].file) {
      files.push_back(files.back());
      continue;
    }
    FileCache::File file = files_.OpenAtOnce(number, PathOf(number));
    if (file == nullptr || !CheckStamp(*file, number).ok()) return {};
    files.push_back(std::move(file));
  }
  return files;
}

absl::StatusOr<ExpertDisk::Files> ExpertDisk::Open(const FileExtents& extents) {
  Files files;
  for (size_t i = 0; i < extents.size(); ++i) {
    const uint32_t number = extents[i].file;
    if (i > 0 && number == extents[i - 1].file) {
      files.push_back(files.back());
      continue;
    }
    ODMOE_ASSIGN_OR_RETURN(FileCache::File file, files_.Open(number, PathOf(number)));
    ODMOE_RETURN_IF_ERROR(CheckStamp(*file, number));
    files.push_back(std::move(file));
  }
  return files;
}

absl::Status ExpertDisk::CheckStamp(const OpenedFile& file, uint32_t number) {
  FileStamp stamp = places_.Stamp(number);
  if (stamp.bytes == 0) return absl::OkStatus();
  struct stat info;
  if (fstat(file.fd.get(), &info) != 0) {
    return absl::DataLossError(
        absl::StrCat(file.path, ": cannot be looked at: ", std::strerror(errno)));
  }
  const uint64_t bytes = static_cast<uint64_t>(info.st_size);
  if (options_.copies && bytes == stamp.bytes) {
    absl::MutexLock lock(&mutex_);
    stamp.modified_ns = modified_ns_.try_emplace(number, ModifiedNs(info)).first->second;
  }
  if (bytes == stamp.bytes &&
      (stamp.modified_ns == 0 || ModifiedNs(info) == stamp.modified_ns)) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(
      file.path, ": has been written to or replaced since the model was opened (", bytes,
      " bytes, expected ", stamp.bytes, "); close the model and open it again"));
}

void ExpertDisk::Forget(const FileExtents& extents) {
  for (const FileExtent& extent : extents) files_.Forget(extent.file);
}

void ExpertDisk::Begin(uint64_t bytes) {
  reads_.fetch_add(1, std::memory_order_relaxed);
  bytes_under_way_.fetch_add(bytes, std::memory_order_relaxed);
}

void ExpertDisk::End(uint64_t bytes, bool failed) {
  bytes_under_way_.fetch_sub(bytes, std::memory_order_relaxed);
  (failed ? failures_ : bytes_read_).fetch_add(failed ? 1 : bytes, std::memory_order_relaxed);
}

DiskStats ExpertDisk::Stats() const {
  return {directory_, reads_.load(std::memory_order_relaxed),
          bytes_read_.load(std::memory_order_relaxed), failures_.load(std::memory_order_relaxed),
          bytes_under_way()};
}

}  // namespace odmoe
