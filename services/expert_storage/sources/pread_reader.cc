#include <unistd.h>

#include <cerrno>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "services/expert_storage/sources/block_reader.h"
#include "services/expert_storage/sources/read_queue.h"

namespace odmoe {
namespace {

// How often a thread without work looks for reads that hang.
constexpr absl::Duration kLook = absl::Milliseconds(500);

// One thread more than requests may be under way: so there is always one that has no read to wait
// for, and sees which others wait for too long.
class PreadReader final : public BlockReader {
 public:
  PreadReader(IoShape shape, PreadCall pread)
      : threads_wanted_(shape.depth + 1), pread_(std::move(pread)), queue_(shape) {}

  ~PreadReader() override {
    std::vector<std::thread> threads;
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      threads = std::move(threads_);
    }
    for (std::thread& thread : threads) thread.join();
  }

  void Read(BlockRead read) override {
    absl::MutexLock lock(&mutex_);
    queue_.Add(std::move(read));
    ++news_;
    AddThread();
  }

  void SetThroughBuffers(bool through_buffers) override {
    absl::MutexLock lock(&mutex_);
    queue_.SetThroughBuffers(through_buffers);
  }

  Gauges gauges() const override {
    absl::MutexLock lock(&mutex_);
    return queue_.gauges();
  }

 private:
  void AddThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (idle_ > 0 || stopping_ || threads_.size() >= threads_wanted_ + queue_.stuck()) return;
    threads_.emplace_back([this] { Work(); });
  }

  void Work() {
    absl::MutexLock lock(&mutex_);
    uint64_t seen = news_;
    while (true) {
      if (ReadQueue::Request* request = queue_.Next(absl::Now())) {
        AddThread();
        mutex_.Unlock();
        while (request->Take(ReadOnce(*request))) {
        }
        mutex_.Lock();
        queue_.Complete(request);
        ++news_;
        TellFinished();
        continue;
      }
      TellFinished();
      if (stopping_ && queue_.idle()) return;
      const auto something_new = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return news_ != seen || (stopping_ && queue_.idle());
      };
      ++idle_;
      const absl::Duration wait =
          queue_.anything_under_way() ? kLook : absl::InfiniteDuration();
      mutex_.AwaitWithTimeout(absl::Condition(&something_new), wait);
      --idle_;
      seen = news_;
      queue_.NoteStuck(absl::Now());
    }
  }

  int64_t ReadOnce(const ReadQueue::Request& request) const {
    const ssize_t n = pread_(request.fd(), request.address(), request.bytes(),
                             static_cast<off_t>(request.offset()));
    return n < 0 ? -errno : n;
  }

  void TellFinished() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::vector<ReadQueue::Finished> finished = queue_.TakeFinished();
    if (finished.empty()) return;
    mutex_.Unlock();
    for (ReadQueue::Finished& read : finished) read.done(std::move(read.status));
    finished.clear();
    mutex_.Lock();
  }

  const uint32_t threads_wanted_;
  const PreadCall pread_;
  mutable absl::Mutex mutex_;
  ReadQueue queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  uint32_t idle_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t news_ ABSL_GUARDED_BY(mutex_) = 0;  // reads come and requests gone
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::unique_ptr<BlockReader> MakePreadReader(IoShape shape, PreadCall pread) {
  if (pread == nullptr) pread = ::pread;
  return std::make_unique<PreadReader>(shape, std::move(pread));
}

}  // namespace odmoe
