#include "services/expert_storage/sources/mapped_expert_source.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/aligned_buffer.h"
#include "xxhash.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace odmoe {
namespace {

// Copies out of a mapping of a file, by the kernel: where the file has been cut short meanwhile, or
// cannot be read, a copy of ours would fault and end the process. False: so it is.
bool CopyOut(const std::byte* from, uint64_t bytes, std::byte* to) {
  while (bytes > 0) {
    const iovec local = {to, bytes};
    const iovec mapped = {const_cast<std::byte*>(from), bytes};
    const ssize_t n = process_vm_readv(getpid(), &local, 1, &mapped, 1, 0);
    if (n < 0 && (errno == ENOSYS || errno == EPERM)) {
      // A sandbox that forbids the call: nothing else is left.
      std::memcpy(to, from, bytes);
      return true;
    }
    if (n <= 0) return false;
    from += n;
    to += n;
    bytes -= static_cast<uint64_t>(n);
  }
  return true;
}

absl::Status CopyMapped(const OpenedFile& file, const FileExtent& extent, std::byte* to) {
  struct stat info = {};
  const uint64_t end = extent.file_offset + extent.bytes;
  if (fstat(file.fd.get(), &info) != 0 || static_cast<uint64_t>(info.st_size) < end) {
    return absl::DataLossError(absl::StrCat(file.path, ": has ", info.st_size, " bytes, expected ",
                                            extent.bytes, " at offset ", extent.file_offset));
  }
  const uint64_t begin = extent.file_offset & ~(kDirectIoAlignment - 1);
  const uint64_t bytes = end - begin;
  void* mapping = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd.get(),
                       static_cast<off_t>(begin));
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", file.path, ": ", std::strerror(errno)));
  }
  const auto unmap = absl::MakeCleanup([&] { munmap(mapping, bytes); });
  // Reads the range in large pieces, and reports what would otherwise be a fault in the copy. Older
  // kernels say EINVAL; there the copy's own faults read.
  if (madvise(mapping, bytes, MADV_POPULATE_READ) != 0 && errno != EINVAL) {
    return absl::DataLossError(absl::StrCat(file.path, ": read of ", bytes, " bytes at offset ",
                                            begin, " failed: ", std::strerror(errno)));
  }
  if (!CopyOut(static_cast<const std::byte*>(mapping) + (extent.file_offset - begin),
               extent.bytes, to)) {
    return absl::DataLossError(absl::StrCat(file.path, ": ", extent.bytes, " bytes at offset ",
                                            extent.file_offset,
                                            " could not be copied: the file was cut short, or "
                                            "its disk failed, while it was read"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedExpertSource>> MappedExpertSource::Create(
    std::unique_ptr<ExpertPlaces> places, std::string directory, size_t threads) {
  if (places->catalog().expert_count() == 0) {
    return absl::InvalidArgumentError("a model without routed experts has nothing to read");
  }
  return absl::WrapUnique(
      new MappedExpertSource(std::move(places), std::move(directory), threads));
}

MappedExpertSource::MappedExpertSource(std::unique_ptr<ExpertPlaces> places,
                                       std::string directory, size_t threads)
    : places_(std::move(places)),
      disk_(*places_, std::move(directory),
            ExpertDisk::Options{.open_files = FileCache::DefaultCapacity()}),
      hashes_(places_->catalog()),
      pool_(threads) {}

void MappedExpertSource::Read(ExpertId id, absl::Span<std::byte> destination,
                              std::shared_ptr<const ReadControl> control, Done done) {
  pool_.Schedule([this, id, destination, control = std::move(control), done = std::move(done)] {
    done(control && control->cancelled() ? absl::CancelledError("nobody wants it any more")
                                         : ReadNow(id, destination));
  });
}

absl::Status MappedExpertSource::ReadNow(ExpertId id, absl::Span<std::byte> destination) {
  const int64_t expert = catalog().IndexOf(id);
  if (expert < 0) {
    return absl::NotFoundError(absl::StrCat("no expert ", ExpertName(id), " in this model"));
  }
  const uint64_t bytes = catalog().FindLayer(id.layer)->layout.bytes;
  if (destination.size() < bytes) {
    return absl::InvalidArgumentError(absl::StrCat("room for ", destination.size(), " bytes, ",
                                                   ExpertName(id), " has ", bytes));
  }
  disk_.Begin(bytes);
  absl::Status status = Copy(expert, destination);
  if (status.ok()) status = hashes_.Check(expert, XXH3_64bits(destination.data(), bytes));
  disk_.End(bytes, !status.ok());
  if (!status.ok()) disk_.Forget(places_->Extents(expert));
  // The registry promises the file.
  return absl::IsNotFound(status) ? absl::DataLossError(status.message()) : status;
}

absl::Status MappedExpertSource::Copy(int64_t expert, absl::Span<std::byte> destination) {
  const FileExtents extents = places_->Extents(expert);
  ODMOE_ASSIGN_OR_RETURN(const ExpertDisk::Files files, disk_.Open(extents));
  for (size_t i = 0; i < extents.size(); ++i) {
    ODMOE_RETURN_IF_ERROR(
        CopyMapped(*files[i], extents[i], destination.data() + extents[i].expert_offset));
  }
  return absl::OkStatus();
}

SourceStats MappedExpertSource::Stats() const {
  SourceStats stats;
  stats.reader = "mmap";
  stats.open_files = disk_.open_files();
  stats.checksum_failures = hashes_.failures();
  stats.disks = {disk_.Stats()};
  return stats;
}

}  // namespace odmoe
