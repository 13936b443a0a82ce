// Heap memory at a given alignment, for direct I/O and SIMD loads.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace odmoe {

inline constexpr size_t kDirectIoAlignment = 4096;

// Owns `size` zeroed bytes at a multiple of the alignment. Movable. Not thread-safe.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;

  // RESOURCE_EXHAUSTED: no memory. `alignment` is a power of two.
  static absl::StatusOr<AlignedBuffer> Allocate(size_t size, size_t alignment = kDirectIoAlignment);

  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }
  absl::Span<std::byte> span() { return {data_.get(), size_}; }
  absl::Span<const std::byte> span() const { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

}  // namespace odmoe
