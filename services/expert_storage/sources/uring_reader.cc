#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "services/expert_storage/sources/block_reader.h"

namespace odmoe {
namespace {

// A BlockRead being served, in requests of at most kUringRequestBytes.
struct Operation {
  BlockRead read;
  BlockReader::Done done;
  uint64_t submitted = 0;  // bytes of read.into handed to the ring
  unsigned under_way = 0;  // requests
  absl::Status status;     // the first failure
};

// One request in the ring: read.into[begin, end) of its operation.
struct Request {
  Operation* operation = nullptr;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// The ring belongs to one thread, which alone touches everything but the inbox.
class UringReader final : public BlockReader {
 public:
  static absl::StatusOr<std::unique_ptr<BlockReader>> Create(unsigned queue_depth) {
    std::unique_ptr<UringReader> reader(new UringReader(queue_depth));
    if (reader->wake_fd_ < 0) {
      return absl::ResourceExhaustedError(absl::StrCat("eventfd: ", std::strerror(errno)));
    }
    // One entry more than reads, for the wake-up.
    const int error = io_uring_queue_init(queue_depth + 1, &reader->ring_, 0);
    if (error < 0) {
      return absl::UnimplementedError(
          absl::StrCat("io_uring is not to be had here: ", std::strerror(-error)));
    }
    reader->thread_ = std::thread([r = reader.get()] { r->Loop(); });
    return reader;
  }

  ~UringReader() override {
    if (thread_.joinable()) {
      {
        absl::MutexLock lock(&mutex_);
        stopping_ = true;
      }
      Wake();
      thread_.join();
      io_uring_queue_exit(&ring_);
    }
    if (wake_fd_ >= 0) close(wake_fd_);
  }

  void Read(BlockRead read, Done done) override {
    auto operation = std::make_unique<Operation>();
    operation->read = std::move(read);
    operation->done = std::move(done);
    {
      absl::MutexLock lock(&mutex_);
      inbox_.push_back(std::move(operation));
    }
    Wake();
  }

 private:
  explicit UringReader(unsigned queue_depth)
      : wake_fd_(eventfd(0, EFD_CLOEXEC)), requests_(queue_depth) {
    for (Request& request : requests_) free_.push_back(&request);
  }

  void Wake() {
    const uint64_t one = 1;
    // Fails only when the counter is full, and then the thread is awake already.
    [[maybe_unused]] const ssize_t n = write(wake_fd_, &one, sizeof(one));
  }

  void Loop() {
    ListenForWake();
    while (true) {
      const bool stopping = TakeInbox();
      FillRing();
      if (stopping && waiting_.empty() && free_.size() == requests_.size()) return;
      // A failure here, EINTR or a ring too busy, leaves the requests in place for the next time.
      io_uring_submit_and_wait(&ring_, 1);
      io_uring_cqe* cqe = nullptr;
      while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
        auto* request = static_cast<Request*>(io_uring_cqe_get_data(cqe));
        const int result = cqe->res;
        io_uring_cqe_seen(&ring_, cqe);
        if (request == nullptr) {
          ListenForWake();
        } else {
          OnResult(*request, result);
        }
      }
    }
  }

  void ListenForWake() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_read(sqe, wake_fd_, &wake_count_, sizeof(wake_count_), 0);
    io_uring_sqe_set_data(sqe, nullptr);
  }

  bool TakeInbox() {
    absl::MutexLock lock(&mutex_);
    for (auto& operation : inbox_) waiting_.push_back(operation.release());
    inbox_.clear();
    return stopping_;
  }

  // Gives the ring as much of the waiting operations, in their order, as it has room for.
  void FillRing() {
    while (!waiting_.empty() && !free_.empty()) {
      Operation* operation = waiting_.front();
      const uint64_t size = operation->read.into.size();
      if (operation->submitted < size && operation->status.ok()) {
        Request* request = free_.back();
        free_.pop_back();
        request->operation = operation;
        request->begin = operation->submitted;
        request->end = std::min<uint64_t>(size, request->begin + kUringRequestBytes);
        operation->submitted = request->end;
        ++operation->under_way;
        Submit(*request);
        if (operation->submitted < size) continue;
      }
      waiting_.pop_front();
      operation->submitted = size;
      CompleteIfOver(operation);
    }
  }

  void Submit(Request& request) {
    const BlockRead& read = request.operation->read;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_read(sqe, read.fd, read.into.data() + request.begin,
                       static_cast<unsigned>(request.end - request.begin),
                       read.offset + request.begin);
    io_uring_sqe_set_data(sqe, &request);
  }

  void OnResult(Request& request, int result) {
    Operation* operation = request.operation;
    if (result == -EINTR || result == -EAGAIN) {
      Submit(request);
      return;
    }
    if (result > 0) request.begin += static_cast<uint64_t>(result);
    const uint64_t needed_end = std::min<uint64_t>(request.end, operation->read.needed);
    if (result > 0 && request.begin < needed_end) {
      Submit(request);
      return;
    }
    if (operation->status.ok() && request.begin < needed_end) {
      operation->status =
          result < 0 ? ReadFailed(operation->read, operation->read.offset + request.begin, -result)
                     : FileEndsEarly(operation->read, request.begin);
    }
    free_.push_back(&request);
    --operation->under_way;
    CompleteIfOver(operation);
  }

  void CompleteIfOver(Operation* operation) {
    const bool all_submitted = operation->submitted == operation->read.into.size();
    if (!all_submitted || operation->under_way > 0) return;
    std::unique_ptr<Operation> owned(operation);
    owned->done(std::move(owned->status));
  }

  const int wake_fd_;
  uint64_t wake_count_ = 0;  // where the ring puts what it reads from wake_fd_
  io_uring ring_{};
  std::vector<Request> requests_;
  std::vector<Request*> free_;
  std::deque<Operation*> waiting_;  // not wholly submitted; owned
  std::thread thread_;

  absl::Mutex mutex_;
  std::vector<std::unique_ptr<Operation>> inbox_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlockReader>> MakeUringReader(unsigned queue_depth) {
  return UringReader::Create(queue_depth);
}

}  // namespace odmoe
