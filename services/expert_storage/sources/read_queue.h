// What a reader asks of its device next: the policy both readers share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/core/io/aligned_buffer.h"
#include "services/expert_storage/arena/shared_region.h"
#include "services/expert_storage/sources/block_reader.h"

namespace odmoe {

// Reads, cut into requests. Not thread-safe, but for what says so.
class ReadQueue {
  struct Operation;

 public:
  // Stuck requests at most; then a reader waits for them after all.
  static constexpr uint32_t kMostStuck = 256;

  // Bytes [begin, end) of an extent, on their way.
  class Request {
   public:
    // What the device is to be asked for now; less each time after a short read.
    int fd() const { return extent_->file->fd.get(); }
    const OpenedFile& file() const { return *extent_->file; }
    std::byte* address() const { return target_.data() + got_; }
    uint64_t bytes() const { return target_.size() - got_; }
    uint64_t offset() const { return window_ + got_; }

    // The device answered: bytes read, or an errno value below 0. True: ask again. Thread-safe
    // among requests: it touches nothing else. Copies what came through a buffer to its place.
    bool Take(int64_t result);

   private:
    friend class ReadQueue;
    Operation* operation_ = nullptr;
    const BlockExtent* extent_ = nullptr;
    size_t extent_index_ = 0;
    uint64_t begin_ = 0;              // in the extent
    uint64_t end_ = 0;
    uint64_t window_ = 0;             // file offset of target_
    absl::Span<std::byte> target_;    // in place, or buffer_
    std::byte* buffer_ = nullptr;     // null: in place
    uint64_t got_ = 0;
    absl::Status status_;
    absl::Time started_;
    bool demand_ = false;             // as it was counted
    bool stuck_ = false;
  };

  // A read that is over, to be told without a lock.
  struct Finished {
    std::function<void(absl::Status)> done;
    absl::Status status;
  };

  explicit ReadQueue(IoShape shape);
  ~ReadQueue();

  void Add(BlockRead read);
  void SetThroughBuffers(bool through_buffers) { shape_.through_buffers = through_buffers; }
  // The next request to give to the device; null: none may be now. It is under way from then on.
  Request* Next(absl::Time now);
  // It has been taken to its end.
  void Complete(Request* request);
  std::vector<Finished> TakeFinished();
  // Looks for requests that have been under way for too long.
  void NoteStuck(absl::Time now);

  // Nothing waits and nothing is under way.
  bool idle() const { return demands_.empty() && others_.empty(); }
  bool anything_under_way() const { return under_way_ > 0; }
  uint32_t stuck() const { return stuck_; }
  const BlockReader::Gauges& gauges() const { return gauges_; }
  // Where requests that need a buffer have theirs; empty until the first of them.
  absl::Span<std::byte> buffers() const {
    return buffers_ == nullptr ? absl::Span<std::byte>() : buffers_->bytes();
  }

 private:
  Operation* Choose();
  Operation* ChooseOther();
  void MoveRaised();
  bool Cut(Operation& operation, Request& request);
  std::byte* TakeBuffer();
  void FinishIfOver(Operation* operation);

  IoShape shape_;
  std::deque<Operation*> demands_;  // in order; owned
  std::deque<Operation*> others_;   // prefetches and the like; owned
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Request*> free_requests_;
  std::unique_ptr<SharedRegion> buffers_;
  std::vector<AlignedBuffer> more_buffers_;
  std::vector<std::byte*> free_buffers_;
  std::vector<Finished> finished_;
  uint32_t under_way_ = 0;
  uint32_t stuck_ = 0;              // of these
  uint32_t others_under_way_ = 0;   // of these, for prefetches and not stuck
  BlockReader::Gauges gauges_;
};

}  // namespace odmoe
