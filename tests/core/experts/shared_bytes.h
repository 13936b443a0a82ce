// Zeroed memory as a table or a pin page wants it.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/types/span.h"
#include "services/core/io/aligned_buffer.h"

namespace odmoe {

struct SharedBytes {
  explicit SharedBytes(size_t size) : buffer(AlignedBuffer::Allocate(size).value()) {}
  absl::Span<std::byte> span() { return buffer.span(); }
  AlignedBuffer buffer;
};

}  // namespace odmoe
