#include "services/expert_storage/arena/shared_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "absl/cleanup/cleanup.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace odmoe {
namespace {

absl::Status NoMemory(const SharedRegion::Options& options, const char* call) {
  return absl::ResourceExhaustedError(absl::StrCat("cannot have ", options.bytes, " bytes (",
                                                   FormatBytes(options.bytes), ") for ",
                                                   options.name, ": ", call, ": ",
                                                   std::strerror(errno)));
}

// Asked before the first page is touched: past a cgroup's limit the kernel would not fail the call
// but end the process.
absl::Status CheckAvailable(const SharedRegion::Options& options) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t available, AvailableMemoryBytes());
  if (options.bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      options.name, " of ", options.bytes, " bytes (", FormatBytes(options.bytes),
      ") is more than the machine has left, ", available, " bytes (", FormatBytes(available), ")"));
}

absl::Status Populate(const SharedRegion::Options& options, int fd, std::byte* data) {
  if (options.huge_pages) madvise(data, options.bytes, MADV_HUGEPAGE);
  if (madvise(data, options.bytes, MADV_POPULATE_WRITE) == 0) return absl::OkStatus();
  if (errno != EINVAL) return NoMemory(options, "populate");
  // A kernel before 5.14.
  if (fd >= 0 && fallocate(fd, 0, 0, static_cast<off_t>(options.bytes)) != 0) {
    return NoMemory(options, "fallocate");
  }
  std::memset(data, 0, options.bytes);
  return absl::OkStatus();
}

absl::Status Seal(const SharedRegion::Options& options, int fd) {
  const int writing = options.clients_write ? 0 : F_SEAL_FUTURE_WRITE;
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | writing | F_SEAL_SEAL) == 0) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrCat("cannot seal ", options.name, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SharedRegion>> SharedRegion::Create(const Options& options) {
  if (options.bytes == 0 ||
      options.bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::InvalidArgumentError(absl::StrCat(options.name, " of ", options.bytes, " bytes"));
  }
  ODMOE_RETURN_IF_ERROR(CheckAvailable(options));
  int fd = -1;
  if (options.shareable) {
    fd = memfd_create(options.name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return NoMemory(options, "memfd_create");
  }
  auto close_fd = absl::MakeCleanup([fd] {
    if (fd >= 0) close(fd);
  });
  if (fd >= 0 && ftruncate(fd, static_cast<off_t>(options.bytes)) != 0) {
    return NoMemory(options, "ftruncate");
  }
  const int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void* address = mmap(nullptr, options.bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (address == MAP_FAILED) return NoMemory(options, "mmap");
  auto region = absl::WrapUnique(
      new SharedRegion(static_cast<std::byte*>(address), options.bytes, fd));
  std::move(close_fd).Cancel();
  ODMOE_RETURN_IF_ERROR(Populate(options, fd, region->data_));
  if (fd >= 0) ODMOE_RETURN_IF_ERROR(Seal(options, fd));
  return region;
}

SharedRegion::~SharedRegion() {
  munmap(data_, size_);
  if (fd_ >= 0) close(fd_);
}

}  // namespace odmoe
