#include "services/expert_storage/sources/read_queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// The slowest disks that work take a few tenths.
constexpr absl::Duration kStuckAfter = absl::Seconds(1);
constexpr uint64_t kPage = kDirectIoAlignment;
constexpr uint64_t kSector = 512;

uint64_t RoundDown(uint64_t value, uint64_t alignment) { return value & ~(alignment - 1); }

absl::Status EndsEarly(const BlockExtent& extent, uint64_t at) {
  return absl::DataLossError(absl::StrCat(extent.file->path, ": ends at offset ", at, ", expected ",
                                          extent.into.size(), " bytes at offset ", extent.offset));
}

absl::Status DeviceFailed(const BlockExtent& extent, uint64_t at, int error) {
  const std::string message = absl::StrCat(extent.file->path, ": read at offset ", at, " failed: ",
                                           std::strerror(error));
  return error == ENOMEM || error == ENOBUFS ? absl::ResourceExhaustedError(message)
                                             : absl::DataLossError(message);
}

bool AlignedAddress(const std::byte* address) {
  return reinterpret_cast<uintptr_t>(address) % kPage == 0;
}

}  // namespace

struct ReadQueue::Operation {
  BlockRead read;
  size_t extent = 0;        // the next request's
  uint64_t submitted = 0;   // bytes of it
  uint32_t under_way = 0;   // requests
  uint32_t stuck = 0;       // of these
  absl::Status status;      // the first failure

  bool all_submitted() const { return extent == read.extents.size(); }
  ReadControl::Urgency urgency() const {
    return read.control ? read.control->urgency() : ReadControl::Urgency::kDemand;
  }
  bool demand() const { return urgency() == ReadControl::Urgency::kDemand; }
  // No more of it will be asked for.
  bool given_up() const { return !status.ok(); }
  void NoteCancelled() {
    if (status.ok() && read.control && read.control->cancelled()) {
      status = absl::CancelledError("nobody wants it any more");
    }
  }
};

bool ReadQueue::Request::Take(int64_t result) {
  if (result == -EINTR || result == -EAGAIN) return true;
  if (result > 0) got_ += static_cast<uint64_t>(result);
  const uint64_t needed = extent_->offset + end_ - window_;
  // A direct read ends short only at the file's end, and its rest may not start there.
  if (result > 0 && got_ < needed && (!extent_->file->direct || got_ % kSector == 0)) return true;
  if (got_ < needed) {
    status_ = result < 0 ? DeviceFailed(*extent_, window_ + got_, static_cast<int>(-result))
                         : EndsEarly(*extent_, window_ + got_);
    return false;
  }
  if (buffer_ != nullptr) {
    std::memcpy(extent_->into.data() + begin_, buffer_ + (extent_->offset + begin_ - window_),
                end_ - begin_);
  }
  if (operation_->read.landed) operation_->read.landed(extent_index_, begin_, end_);
  return false;
}

ReadQueue::ReadQueue(IoShape shape) : shape_(shape) {}

ReadQueue::~ReadQueue() = default;

void ReadQueue::Add(BlockRead read) {
  auto operation = std::make_unique<Operation>();
  operation->read = std::move(read);
  Operation* added = operation.release();
  (added->demand() ? demands_ : others_).push_back(added);
  if (!added->all_submitted()) ++gauges_.reads_waiting;
  FinishIfOver(added);
}

ReadQueue::Request* ReadQueue::Next(absl::Time now) {
  while (under_way_ - stuck_ < shape_.depth && stuck_ < kMostStuck) {
    Operation* operation = Choose();
    if (operation == nullptr) return nullptr;
    if (free_requests_.empty()) {
      requests_.push_back(std::make_unique<Request>());
      free_requests_.push_back(requests_.back().get());
    }
    Request* request = free_requests_.back();
    *request = Request();
    if (!Cut(*operation, *request)) {
      operation->status = absl::ResourceExhaustedError("no memory for a read's buffer");
      FinishIfOver(operation);
      continue;
    }
    free_requests_.pop_back();
    request->operation_ = operation;
    request->started_ = now;
    request->demand_ = operation->demand();
    ++operation->under_way;
    ++under_way_;
    if (!request->demand_) ++others_under_way_;
    if (operation->all_submitted()) --gauges_.reads_waiting;
    ++gauges_.requests;
    gauges_.requests_under_way = under_way_;
    return request;
  }
  return nullptr;
}

ReadQueue::Operation* ReadQueue::Choose() {
  MoveRaised();
  bool demand_active = false;
  for (size_t i = 0; i < demands_.size();) {
    Operation* operation = demands_[i];
    operation->NoteCancelled();
    if (operation->given_up() && operation->under_way == 0) {
      FinishIfOver(operation);
      continue;  // it is gone from its place
    }
    if (operation->stuck == 0) {
      demand_active = true;
      if (!operation->given_up() && !operation->all_submitted()) return operation;
    }
    ++i;
  }
  return demand_active ? nullptr : ChooseOther();
}

// Somebody has begun to wait for it, or has ceased to want it.
void ReadQueue::MoveRaised() {
  for (size_t i = 0; i < others_.size();) {
    Operation* operation = others_[i];
    operation->NoteCancelled();
    if (operation->given_up() && operation->under_way == 0) {
      FinishIfOver(operation);
    } else if (operation->demand()) {
      others_.erase(others_.begin() + static_cast<std::ptrdiff_t>(i));
      demands_.push_back(operation);
    } else {
      ++i;
    }
  }
}

ReadQueue::Operation* ReadQueue::ChooseOther() {
  if (others_under_way_ > 0) return nullptr;
  Operation* best = nullptr;
  for (Operation* operation : others_) {
    if (operation->given_up() || operation->all_submitted() || operation->stuck > 0) continue;
    if (best == nullptr || operation->urgency() < best->urgency()) best = operation;
  }
  return best;
}

bool ReadQueue::Cut(Operation& operation, Request& request) {
  const BlockExtent& extent = operation.read.extents[operation.extent];
  const uint64_t size = extent.into.size();
  request.extent_ = &extent;
  request.extent_index_ = operation.extent;
  request.begin_ = operation.submitted;
  const uint64_t from = extent.offset + request.begin_;
  std::byte* const place = extent.into.data() + request.begin_;
  // The first cut falls where direct reads may start, and so do all others.
  uint64_t to = RoundDown(from, kPage) + shape_.request_bytes;
  to = std::min(to, extent.offset + size);
  bool in_place = true;
  if (extent.file->direct) {
    const uint64_t phase = from % kPage;
    const bool alike = AlignedAddress(place - phase) && !shape_.through_buffers;
    const uint64_t end_in_place = request.begin_ + RoundUp(to - from, kPage);
    in_place = alike && phase == 0;
    if (alike && phase != 0) {
      to = std::min(to, RoundUp(from, kPage));  // the rest will be in place
    } else if (in_place && end_in_place > extent.room) {
      in_place = RoundDown(to, kPage) > from;
      if (in_place) to = RoundDown(to, kPage);  // the rest needs a buffer
    }
  }
  request.end_ = to - extent.offset;
  if (in_place) {
    const uint64_t bytes = to - from;
    request.window_ = from;
    request.target_ = {place, extent.file->direct ? RoundUp(bytes, kPage) : bytes};
  } else {
    request.buffer_ = TakeBuffer();
    if (request.buffer_ == nullptr) return false;
    request.window_ = RoundDown(from, kPage);
    request.target_ = {request.buffer_, RoundUp(to, kPage) - request.window_};
  }
  operation.submitted = request.end_;
  if (operation.submitted == size) {
    ++operation.extent;
    operation.submitted = 0;
  }
  return true;
}

std::byte* ReadQueue::TakeBuffer() {
  if (buffers_ == nullptr) {
    SharedRegion::Options options;
    options.name = "odmoe-read-buffers";
    options.bytes = shape_.bytes();
    options.huge_pages = HugePages::kAuto;
    auto buffers = SharedRegion::Create(options);
    if (!buffers.ok()) return nullptr;
    buffers_ = *std::move(buffers);
    for (uint32_t i = 0; i < shape_.depth; ++i) {
      free_buffers_.push_back(buffers_->bytes().data() + i * shape_.request_bytes);
    }
  }
  if (free_buffers_.empty()) {  // stuck requests have theirs
    auto more = AlignedBuffer::Allocate(shape_.request_bytes);
    if (!more.ok()) return nullptr;
    more_buffers_.push_back(*std::move(more));
    free_buffers_.push_back(more_buffers_.back().data());
  }
  std::byte* buffer = free_buffers_.back();
  free_buffers_.pop_back();
  return buffer;
}

void ReadQueue::Complete(Request* request) {
  Operation* operation = request->operation_;
  operation->status.Update(request->status_);
  --under_way_;
  --operation->under_way;
  if (request->stuck_) {
    --stuck_;
    --operation->stuck;
  } else if (!request->demand_) {
    --others_under_way_;
  }
  gauges_.requests_under_way = under_way_;
  gauges_.requests_stuck = stuck_;
  if (request->buffer_ != nullptr) free_buffers_.push_back(request->buffer_);
  request->operation_ = nullptr;
  free_requests_.push_back(request);
  FinishIfOver(operation);
}

void ReadQueue::FinishIfOver(Operation* operation) {
  if (operation->under_way > 0 || (!operation->all_submitted() && !operation->given_up())) return;
  if (!operation->all_submitted()) --gauges_.reads_waiting;
  std::erase(demands_, operation);
  std::erase(others_, operation);
  finished_.push_back({std::move(operation->read.done), std::move(operation->status)});
  delete operation;
}

std::vector<ReadQueue::Finished> ReadQueue::TakeFinished() { return std::exchange(finished_, {}); }

void ReadQueue::NoteStuck(absl::Time now) {
  for (const auto& request : requests_) {
    if (request->operation_ == nullptr || request->stuck_) continue;
    if (now - request->started_ < kStuckAfter) continue;
    request->stuck_ = true;
    ++stuck_;
    ++request->operation_->stuck;
    if (!request->demand_) --others_under_way_;
  }
  gauges_.requests_stuck = stuck_;
}

}  // namespace odmoe
