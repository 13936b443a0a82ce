#include "services/expert_storage/arena/shared_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>

#include "absl/cleanup/cleanup.h"
#include "absl/memory/memory.h"
#include "absl/strings/match.h"
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

absl::Status Populate(const SharedRegion::Options& options, int fd, std::byte* data) {
  madvise(data, options.bytes,
          options.huge_pages == HugePages::kNever ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
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

// "always [madvise] never": the word in brackets is in force.
bool Forbidden(const char* path) {
  std::ifstream in(path);
  std::string words;
  std::getline(in, words);
  return absl::StrContains(words, "[never]") || absl::StrContains(words, "[deny]");
}

}  // namespace

absl::StatusOr<HugePages> ParseHugePages(absl::string_view text) {
  for (HugePages value : {HugePages::kAuto, HugePages::kNever, HugePages::kAlways}) {
    if (text == HugePagesName(value)) return value;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("huge pages '", text, "': expected auto, never or always"));
}

absl::string_view HugePagesName(HugePages huge_pages) {
  switch (huge_pages) {
    case HugePages::kNever:
      return "never";
    case HugePages::kAlways:
      return "always";
    case HugePages::kAuto:
      break;
  }
  return "auto";
}

uint64_t HugePageBytes(absl::Span<const std::byte> range, bool shareable) {
  const std::string folder = "/sys/kernel/mm/transparent_hugepage/";
  if (Forbidden((folder + (shareable ? "shmem_enabled" : "enabled")).c_str())) return 0;
  const absl::string_view field = shareable ? "ShmemPmdMapped:" : "AnonHugePages:";
  const auto begin = reinterpret_cast<uintptr_t>(range.data());
  std::ifstream in("/proc/self/smaps");
  std::string line;
  uint64_t bytes = 0;
  bool inside = false;
  while (std::getline(in, line)) {
    uint64_t first = 0, last = 0;
    // "7f00-7fff rw-s .." begins a mapping; "Name:  12 kB" belongs to the last one begun.
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " ", &first, &last) == 2) {
      inside = first >= begin && last <= begin + range.size();
    } else if (inside && absl::StartsWith(line, field)) {
      bytes += std::strtoull(line.c_str() + field.size(), nullptr, 10) * kKiB;
    }
  }
  return bytes;
}

// Asked before the first page is touched: past a cgroup's limit the kernel would not fail the call
// but end the process.
absl::Status CheckMemoryLeft(absl::string_view what, uint64_t bytes) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t available, AvailableMemoryBytes());
  if (bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      what, " of ", bytes, " bytes (", FormatBytes(bytes),
      ") is more than the machine and its memory limits (cgroup) have left, ", available,
      " bytes (", FormatBytes(available),
      "); give a smaller budget or auto, end other processes, or raise the limit"));
}

absl::StatusOr<std::unique_ptr<SharedRegion>> SharedRegion::Create(const Options& options) {
  if (options.bytes == 0 ||
      options.bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::InvalidArgumentError(absl::StrCat(options.name, " of ", options.bytes, " bytes"));
  }
  ODMOE_RETURN_IF_ERROR(CheckMemoryLeft(options.name, options.bytes));
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
  const int flags = (fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS) |
                    (options.place != nullptr ? MAP_FIXED : 0);
  void* address = mmap(options.place, options.bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (address == MAP_FAILED) return NoMemory(options, "mmap");
  auto region = absl::WrapUnique(
      new SharedRegion(static_cast<std::byte*>(address), options.bytes, fd,
                       options.place != nullptr));
  std::move(close_fd).Cancel();
  ODMOE_RETURN_IF_ERROR(Populate(options, fd, region->data_));
  region->locked_ = options.lock_memory && mlock(address, options.bytes) == 0;
  if (fd >= 0) ODMOE_RETURN_IF_ERROR(Seal(options, fd));
  return region;
}

SharedRegion::~SharedRegion() {
  if (placed_) {
    // Back to a reservation, in one step, so that nothing else is mapped there in between.
    mmap(data_, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  } else {
    munmap(data_, size_);
  }
  if (fd_ >= 0) close(fd_);
}

}  // namespace odmoe
