#include "services/core/io/aligned_buffer.h"

#include <cstdlib>
#include <cstring>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/units.h"

namespace odmoe {

void AlignedBuffer::Free::operator()(std::byte* p) const { std::free(p); }

absl::StatusOr<AlignedBuffer> AlignedBuffer::Allocate(size_t size, size_t alignment) {
  if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("alignment must be a power of two, got ", alignment));
  }
  const auto no_memory = [size] {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for a buffer of ", size, " bytes"));
  };
  if (size > std::numeric_limits<size_t>::max() - alignment) return no_memory();
  AlignedBuffer buffer;
  // aligned_alloc wants a whole number of alignments, and zero bytes need no memory but a pointer.
  const size_t rounded = RoundUp(size == 0 ? 1 : size, alignment);
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) return no_memory();
  std::memset(memory, 0, rounded);
  buffer.data_.reset(static_cast<std::byte*>(memory));
  buffer.size_ = size;
  return buffer;
}

}  // namespace odmoe
