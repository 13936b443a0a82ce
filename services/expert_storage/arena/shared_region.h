// Memory that other processes may map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace odmoe {

// Zeroed memory of a fixed size, every page of it present from the start. Thread-safe.
class SharedRegion {
 public:
  struct Options {
    std::string name;            // shown in /proc/<pid>/maps
    uint64_t bytes = 0;
    bool shareable = false;      // behind a memfd, else private to the process
    bool clients_write = false;  // else the memfd is sealed against every later writer
    bool huge_pages = false;     // asked for; the system may not grant them
  };

  // RESOURCE_EXHAUSTED: the machine or this process's limits do not have so much, with the figures.
  static absl::StatusOr<std::unique_ptr<SharedRegion>> Create(const Options& options);
  ~SharedRegion();
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  absl::Span<std::byte> bytes() const { return {data_, size_}; }
  // The sealed memfd, to be handed to clients; -1 when not shareable. Owned by the region.
  int fd() const { return fd_; }

 private:
  SharedRegion(std::byte* data, size_t size, int fd) : data_(data), size_(size), fd_(fd) {}
  std::byte* data_;
  size_t size_;
  int fd_;
};

}  // namespace odmoe
