// Memory that other processes may map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace odmoe {

// Whether memory is to be mapped by huge pages: where the kernel grants them, not at all, or not
// without.
enum class HugePages { kAuto, kNever, kAlways };
// "auto", "never", "always". INVALID_ARGUMENT: anything else.
absl::StatusOr<HugePages> ParseHugePages(absl::string_view text);
absl::string_view HugePagesName(HugePages huge_pages);

// Bytes within `range` that the kernel maps by huge pages now; 0 where it does not say.
uint64_t HugePageBytes(absl::Span<const std::byte> range, bool shareable);

// OK where the machine and the process's limits have so many bytes left. RESOURCE_EXHAUSTED: with
// the figures and what to do. `what` for the message.
absl::Status CheckMemoryLeft(absl::string_view what, uint64_t bytes);

// Zeroed memory of a fixed size, every page of it present from the start. Thread-safe.
class SharedRegion {
 public:
  struct Options {
    std::string name;            // shown in /proc/<pid>/maps
    uint64_t bytes = 0;
    bool shareable = false;      // behind a memfd, else private to the process
    bool clients_write = false;  // else the memfd is sealed against every later writer
    HugePages huge_pages = HugePages::kNever;  // kAlways is the caller's to check
    bool lock_memory = false;    // where the system allows it
    std::byte* place = nullptr;  // where to map it, over a reservation that comes back at its end;
                                 // null: anywhere
  };

  // RESOURCE_EXHAUSTED: the machine or this process's limits do not have so much, with the figures.
  static absl::StatusOr<std::unique_ptr<SharedRegion>> Create(const Options& options);
  ~SharedRegion();
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  absl::Span<std::byte> bytes() const { return {data_, size_}; }
  // The sealed memfd, to be handed to clients; -1 when not shareable. Owned by the region.
  int fd() const { return fd_; }
  // Whether no page of it can be swapped out.
  bool locked() const { return locked_; }

 private:
  SharedRegion(std::byte* data, size_t size, int fd, bool placed)
      : data_(data), size_(size), fd_(fd), placed_(placed) {}
  std::byte* data_;
  size_t size_;
  int fd_;
  bool placed_;
  bool locked_ = false;
};

}  // namespace odmoe
