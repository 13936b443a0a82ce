// Reads of file ranges into memory, many at once.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/core/experts/read_control.h"
#include "services/expert_storage/sources/file_cache.h"

namespace odmoe {

// One range, of any offset, size and address. What of it O_DIRECT cannot put in place, because file
// and memory are not aligned alike, goes through a buffer of the reader's and is copied.
struct BlockExtent {
  std::shared_ptr<const OpenedFile> file;
  uint64_t offset = 0;  // in the file
  absl::Span<std::byte> into;
  // Bytes from into.data() on that may be overwritten, into.size() at least: with room up to the
  // next multiple of 4096, an aligned extent needs no buffer for its end.
  uint64_t room = 0;
};

struct BlockRead {
  absl::InlinedVector<BlockExtent, 1> extents;
  std::shared_ptr<const ReadControl> control;  // null: a demand, never given up
  // Bytes [begin, end) of extents[extent].into have come; maybe null. From a thread of the reader,
  // in any order, several at once. Does not block.
  std::function<void(size_t extent, uint64_t begin, uint64_t end)> landed;
  // Called once, from a thread of the reader. DATA_LOSS: the file ends too soon, or the device
  // failed. RESOURCE_EXHAUSTED: no memory. CANCELLED: `control` said so.
  std::function<void(absl::Status)> done;
};

// How much is asked of a device at once.
struct IoShape {
  uint32_t depth = 16;                    // requests under way
  uint64_t request_bytes = 1 << 20;       // of one; a multiple of 4096
  // Everything that O_DIRECT reads goes through the reader's buffers. They lie in huge pages where
  // those are to be had: a device that is asked for a page at a time may be so much slower that a
  // copy is the smaller price.
  bool through_buffers = false;
  uint64_t bytes() const { return depth * request_bytes; }
};

// Demands are served in order. A prefetch has one request under way at most, and starts none while
// a demand waits or is under way; its control is looked at before each request. A request that has
// been under way for a second is stuck: it counts no longer, and the read it belongs to starts no
// more, so that a file that hangs takes others nothing. Thread-safe. Destruction waits for every
// read under way.
class BlockReader {
 public:
  struct Gauges {
    uint64_t requests = 0;            // since it was made
    uint64_t requests_under_way = 0;  // now, stuck ones among them
    uint64_t requests_stuck = 0;
    uint64_t reads_waiting = 0;       // of which a part is not asked for yet
    uint64_t registered_bytes = 0;
  };

  virtual ~BlockReader() = default;
  virtual void Read(BlockRead read) = 0;
  // As ExpertSource's.
  virtual void OfferMemory(absl::Span<std::byte> memory) { static_cast<void>(memory); }
  virtual void TakeBackMemory(absl::Span<std::byte> memory) { static_cast<void>(memory); }
  // For requests from now on; see IoShape.
  virtual void SetThroughBuffers(bool through_buffers) { static_cast<void>(through_buffers); }
  virtual Gauges gauges() const = 0;
};

// Reads by io_uring, one thread that submits and reaps, with registered files, and memory where
// the kernel grants it. UNIMPLEMENTED: the kernel or a sandbox forbids io_uring.
absl::StatusOr<std::unique_ptr<BlockReader>> MakeUringReader(IoShape shape);

// As pread(2), for tests that fail or hold calls.
using PreadCall = std::function<ssize_t(int fd, void* into, size_t bytes, off_t offset)>;
// Reads by pread on up to shape.depth threads, and one more for each that is stuck.
std::unique_ptr<BlockReader> MakePreadReader(IoShape shape, PreadCall pread = nullptr);

}  // namespace odmoe
