// Reads of file ranges into memory, many at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace odmoe {

// One range. For a file open with O_DIRECT, offset, address and size are multiples of 4096.
struct BlockRead {
  int fd = -1;          // stays open until done
  std::string path;     // for messages
  uint64_t offset = 0;  // in the file
  absl::Span<std::byte> into;
  uint64_t needed = 0;  // bytes of `into` that the file must have; past them it may end
};

// Thread-safe. Destruction waits for every read under way.
class BlockReader {
 public:
  // Called once for each read, from a thread of the reader or from within Read.
  // DATA_LOSS: the file ends too soon, or the device failed.
  using Done = std::function<void(absl::Status)>;

  virtual ~BlockReader() = default;
  virtual void Read(BlockRead read, Done done) = 0;
};

// Reads by io_uring: one thread that submits and reaps, `queue_depth` requests of up to
// kUringRequestBytes under way. UNIMPLEMENTED: the kernel or a sandbox forbids io_uring.
absl::StatusOr<std::unique_ptr<BlockReader>> MakeUringReader(unsigned queue_depth);

// Reads by pread on up to `threads` threads.
std::unique_ptr<BlockReader> MakePreadReader(size_t threads);

// Large enough that a disk reaches its full rate with few of them, small enough that two experts
// read at once share it.
inline constexpr uint64_t kUringRequestBytes = 1 << 20;

// What a read of `got` bytes at most at `offset` says when the file must have more.
absl::Status FileEndsEarly(const BlockRead& read, uint64_t got);
// What the failure `error`, an errno value, of a read at `offset` says.
absl::Status ReadFailed(const BlockRead& read, uint64_t offset, int error);

}  // namespace odmoe
