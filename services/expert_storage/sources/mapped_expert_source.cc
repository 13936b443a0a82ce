#include "services/expert_storage/sources/mapped_expert_source.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/expert_storage/sources/expert_files.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace odmoe {

MappedExpertSource::MappedExpertSource(ExpertRegistry registry, size_t threads)
    : registry_(std::move(registry)), pool_(threads) {}

void MappedExpertSource::Read(ExpertId id, absl::Span<std::byte> destination,
                              std::shared_ptr<const ReadControl>, Done done) {
  pool_.Schedule([this, id, destination, done = std::move(done)] { done(Copy(id, destination)); });
}

absl::Status MappedExpertSource::Copy(ExpertId id, absl::Span<std::byte> destination) const {
  ODMOE_ASSIGN_OR_RETURN(const ExpertExtent extent, OpenExpert(registry_, id, 0));
  if (destination.size() < extent.bytes) {
    return absl::InvalidArgumentError(absl::StrCat("room for ", destination.size(), " bytes, ",
                                                   ExpertName(id), " has ", extent.bytes));
  }
  void* mapping = mmap(nullptr, extent.bytes, PROT_READ, MAP_SHARED, extent.file.fd(),
                       static_cast<off_t>(extent.offset));
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", extent.path, ": ", std::strerror(errno)));
  }
  const auto unmap = absl::MakeCleanup([&] { munmap(mapping, extent.bytes); });
  // Reads the range in large pieces, and reports what would otherwise be a fault in the copy. Older
  // kernels say EINVAL; there the copy's own faults read.
  if (madvise(mapping, extent.bytes, MADV_POPULATE_READ) != 0 && errno != EINVAL) {
    return absl::DataLossError(absl::StrCat(extent.path, ": read of ", extent.bytes,
                                            " bytes at offset ", extent.offset,
                                            " failed: ", std::strerror(errno)));
  }
  std::memcpy(destination.data(), mapping, extent.bytes);
  return absl::OkStatus();
}

}  // namespace odmoe
