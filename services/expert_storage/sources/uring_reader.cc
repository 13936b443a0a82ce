#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "services/core/base/units.h"
#include "services/core/io/owned_fd.h"
#include "services/expert_storage/sources/block_reader.h"
#include "services/expert_storage/sources/read_queue.h"

namespace odmoe {
namespace {

constexpr unsigned kFileSlots = 128;
constexpr unsigned kMemorySlots = 1024;
// The kernel registers no larger piece.
constexpr uint64_t kLargestPiece = kGiB;
constexpr long kLookNanoseconds = 500'000'000;  // how often reads that hang are looked for

// The files the kernel has been told of: a request that names one by its slot need not look it up.
// A slot is given to another file only while no request uses it, submitted or about to be.
class RegisteredFiles {
 public:
  // Without, where the kernel refuses.
  void Start(io_uring& ring) {
    if (io_uring_register_files_sparse(&ring, kFileSlots) == 0) slots_.resize(kFileSlots);
  }

  // The slot of a file that a request is about to use; -1: none, use its descriptor.
  int Use(io_uring& ring, const OpenedFile& file) {
    const auto found = by_id_.find(file.id);
    const int slot = found != by_id_.end() ? found->second : Give(ring, file);
    if (slot >= 0) {
      ++slots_[slot].uses;
      slots_[slot].used_last = ++clock_;
    }
    return slot;
  }
  void Done(int slot) {
    if (slot >= 0) --slots_[slot].uses;
  }

 private:
  struct Slot {
    uint64_t id = 0;
    unsigned uses = 0;
    uint64_t used_last = 0;
  };

  int Give(io_uring& ring, const OpenedFile& file) {
    auto oldest = slots_.end();
    for (auto slot = slots_.begin(); slot != slots_.end(); ++slot) {
      if (slot->uses > 0) continue;
      if (oldest == slots_.end() || slot->used_last < oldest->used_last) oldest = slot;
    }
    if (oldest == slots_.end()) return -1;
    const int slot = static_cast<int>(oldest - slots_.begin());
    const int fd = file.fd.get();
    if (io_uring_register_files_update(&ring, static_cast<unsigned>(slot), &fd, 1) != 1) return -1;
    if (oldest->id != 0) by_id_.erase(oldest->id);
    oldest->id = file.id;
    by_id_[file.id] = slot;
    return slot;
  }

  std::vector<Slot> slots_;
  absl::flat_hash_map<uint64_t, int> by_id_;
  uint64_t clock_ = 0;
};

// The memory the kernel has been told of: reads into it need not find and hold its pages each time.
class RegisteredMemory {
 public:
  void Start(io_uring& ring) {
    if (io_uring_register_buffers_sparse(&ring, kMemorySlots) != 0) return;
    for (unsigned slot = kMemorySlots; slot > 0; --slot) free_slots_.push_back(slot - 1);
  }

  // As far as the kernel grants it; the limit of locked memory may be low.
  void Offer(io_uring& ring, absl::Span<std::byte> memory) {
    for (uint64_t at = 0; at < memory.size() && !free_slots_.empty(); at += kLargestPiece) {
      const auto bytes = memory.subspan(at, kLargestPiece);
      if (!Set(ring, free_slots_.back(), bytes)) return;
      pieces_.push_back({bytes, free_slots_.back()});
      free_slots_.pop_back();
    }
  }

  void TakeBack(io_uring& ring, absl::Span<std::byte> memory) {
    std::erase_if(pieces_, [&](const Piece& piece) {
      if (piece.bytes.data() < memory.begin() || piece.bytes.data() >= memory.end()) return false;
      Set(ring, piece.slot, {});
      free_slots_.push_back(piece.slot);
      return true;
    });
  }

  // The slot of the piece that holds all of the range; -1: none does.
  int Find(const std::byte* address, uint64_t bytes) const {
    for (const Piece& piece : pieces_) {
      if (address >= piece.bytes.begin() && address + bytes <= piece.bytes.end()) {
        return static_cast<int>(piece.slot);
      }
    }
    return -1;
  }

  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const Piece& piece : pieces_) sum += piece.bytes.size();
    return sum;
  }

 private:
  struct Piece {
    absl::Span<std::byte> bytes;
    unsigned slot;
  };

  static bool Set(io_uring& ring, unsigned slot, absl::Span<std::byte> bytes) {
    const iovec vector = {bytes.data(), bytes.size()};
    const __u64 tag = 0;
    return io_uring_register_buffers_update_tag(&ring, slot, &vector, &tag, 1) == 1;
  }

  std::vector<Piece> pieces_;
  std::vector<unsigned> free_slots_;
};

// The ring belongs to one thread, which alone touches everything but the inbox. With that promised
// to the kernel, completions are worked off when the thread asks for them and interrupt nobody.
class UringReader final : public BlockReader {
 public:
  static absl::StatusOr<std::unique_ptr<BlockReader>> Create(IoShape shape) {
    std::unique_ptr<UringReader> reader(new UringReader(shape));
    if (reader->wake_fd_.get() < 0) {
      return absl::ResourceExhaustedError(absl::StrCat("eventfd: ", std::strerror(errno)));
    }
    absl::Notification started;
    int error = 0;
    reader->thread_ = std::thread([&, r = reader.get()] {
      error = r->StartRing();
      const bool ok = error == 0;
      started.Notify();
      if (ok) r->Loop();
    });
    started.WaitForNotification();
    if (error != 0) {
      reader->thread_.join();
      return absl::UnimplementedError(
          absl::StrCat("io_uring is not to be had here: ", std::strerror(-error)));
    }
    return reader;
  }

  ~UringReader() override {
    if (!thread_.joinable()) return;
    Tell([](Inbox& inbox) { inbox.stopping = true; });
    thread_.join();
    io_uring_queue_exit(&ring_);
  }

  void Read(BlockRead read) override {
    Tell([&](Inbox& inbox) { inbox.reads.push_back(std::move(read)); });
  }

  void OfferMemory(absl::Span<std::byte> memory) override {
    RunOnThread([&] { memory_.Offer(ring_, memory); });
  }
  void TakeBackMemory(absl::Span<std::byte> memory) override {
    RunOnThread([&] { memory_.TakeBack(ring_, memory); });
  }

  void SetThroughBuffers(bool through_buffers) override {
    RunOnThread([&] { queue_.SetThroughBuffers(through_buffers); });
  }

  Gauges gauges() const override {
    absl::MutexLock lock(&mutex_);
    return gauges_;
  }

 private:
  struct Inbox {
    std::vector<BlockRead> reads;
    std::vector<std::function<void()>> calls;
    bool stopping = false;
    bool empty() const { return reads.empty() && calls.empty() && !stopping; }
  };
  // What comes back with a completion.
  struct Ticket {
    ReadQueue::Request* request = nullptr;
    int file_slot = -1;
  };

  explicit UringReader(IoShape shape)
      : depth_(shape.depth), wake_fd_(eventfd(0, EFD_CLOEXEC)), queue_(shape) {}

  int StartRing() {
    const unsigned entries = depth_ + 1;  // one for the wake-up
    io_uring_params params = {};
    params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    // Room for all that may be stuck besides those at work.
    params.cq_entries = 2 * (depth_ + 1) + ReadQueue::kMostStuck;
    int error = io_uring_queue_init_params(entries, &ring_, &params);
    if (error == -EINVAL) {  // a kernel before 6.1
      params.flags = IORING_SETUP_CQSIZE;
      error = io_uring_queue_init_params(entries, &ring_, &params);
    }
    if (error < 0) return error;
    files_.Start(ring_);
    memory_.Start(ring_);
    return 0;
  }

  template <typename Change>
  void Tell(Change change) {
    // Kept until the thread is woken: what it then does may let the reader be destroyed, and that
    // takes the lock before it closes the descriptor.
    absl::MutexLock lock(&mutex_);
    const bool asleep = inbox_.empty();  // else who came before has woken the thread
    change(inbox_);
    if (!asleep) return;
    const uint64_t one = 1;
    // Fails only when the counter is full, and then the thread is awake already.
    [[maybe_unused]] const ssize_t n = write(wake_fd_.get(), &one, sizeof(one));
  }

  void RunOnThread(std::function<void()> call) {
    absl::Notification done;
    Tell([&](Inbox& inbox) {
      inbox.calls.push_back([&] {
        call();
        PublishGauges();
        done.Notify();
      });
    });
    done.WaitForNotification();
  }

  void Loop() {
    ListenForWake();
    while (true) {
      const bool stopping = TakeInbox();
      FillRing();
      if (stopping && queue_.idle()) return;
      // A failure here, EINTR or a ring too busy, leaves the requests in place for the next time.
      io_uring_cqe* cqe = nullptr;
      __kernel_timespec look = {0, kLookNanoseconds};
      io_uring_submit_and_wait_timeout(&ring_, &cqe, 1,
                                       queue_.anything_under_way() ? &look : nullptr, nullptr);
      Reap();
      if (absl::Now() >= next_look_) {
        next_look_ = absl::Now() + absl::Nanoseconds(kLookNanoseconds);
        queue_.NoteStuck(absl::Now());
      }
    }
  }

  void Reap() {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      auto* ticket = static_cast<Ticket*>(io_uring_cqe_get_data(cqe));
      const int result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      if (ticket == nullptr) {
        ListenForWake();
      } else if (ticket->request->Take(result)) {
        Submit(*ticket);
      } else {
        queue_.Complete(ticket->request);
        files_.Done(ticket->file_slot);
        free_tickets_.push_back(ticket);
        FillRing();
      }
    }
  }

  io_uring_sqe* NextEntry() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
  }

  void ListenForWake() {
    io_uring_sqe* sqe = NextEntry();
    io_uring_prep_read(sqe, wake_fd_.get(), &wake_count_, sizeof(wake_count_), 0);
    io_uring_sqe_set_data(sqe, nullptr);
  }

  bool TakeInbox() {
    Inbox inbox;
    {
      absl::MutexLock lock(&mutex_);
      std::swap(inbox.reads, inbox_.reads);
      std::swap(inbox.calls, inbox_.calls);
      inbox.stopping = inbox_.stopping;
    }
    PublishGauges();
    for (BlockRead& read : inbox.reads) queue_.Add(std::move(read));
    for (const auto& call : inbox.calls) call();
    return inbox.stopping;
  }

  void PublishGauges() {
    absl::MutexLock lock(&mutex_);
    gauges_ = queue_.gauges();
    gauges_.registered_bytes = memory_.bytes();
  }

  // Gives the ring as much as it may have, then tells whose reads are over: the disk must not wait
  // for them.
  void FillRing() {
    const absl::Time now = absl::Now();
    bool any = false;
    while (ReadQueue::Request* request = queue_.Next(now)) {
      if (free_tickets_.empty()) {
        tickets_.push_back(std::make_unique<Ticket>());
        free_tickets_.push_back(tickets_.back().get());
      }
      Ticket* ticket = free_tickets_.back();
      free_tickets_.pop_back();
      ticket->request = request;
      ticket->file_slot = -1;
      Submit(*ticket);
      any = true;
    }
    std::vector<ReadQueue::Finished> finished = queue_.TakeFinished();
    if (finished.empty()) return;
    if (any) io_uring_submit(&ring_);
    for (ReadQueue::Finished& read : finished) read.done(std::move(read.status));
  }

  void Submit(Ticket& ticket) {
    const ReadQueue::Request& request = *ticket.request;
    if (ticket.file_slot < 0) ticket.file_slot = files_.Use(ring_, request.file());
    io_uring_sqe* sqe = NextEntry();
    const bool fixed_file = ticket.file_slot >= 0;
    const int file = fixed_file ? ticket.file_slot : request.fd();
    const unsigned bytes = static_cast<unsigned>(request.bytes());
    if (!queue_.buffers().empty() && !buffers_offered_) {
      buffers_offered_ = true;
      memory_.Offer(ring_, queue_.buffers());
    }
    const int piece = memory_.Find(request.address(), request.bytes());
    if (piece >= 0) {
      io_uring_prep_read_fixed(sqe, file, request.address(), bytes, request.offset(), piece);
    } else {
      io_uring_prep_read(sqe, file, request.address(), bytes, request.offset());
    }
    if (fixed_file) io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data(sqe, &ticket);
  }

  const uint32_t depth_;
  const OwnedFd wake_fd_;
  uint64_t wake_count_ = 0;  // where the ring puts what it reads from wake_fd_
  io_uring ring_{};
  RegisteredFiles files_;
  RegisteredMemory memory_;
  ReadQueue queue_;
  bool buffers_offered_ = false;
  std::vector<std::unique_ptr<Ticket>> tickets_;
  std::vector<Ticket*> free_tickets_;
  absl::Time next_look_ = absl::InfinitePast();
  std::thread thread_;

  mutable absl::Mutex mutex_;
  Inbox inbox_ ABSL_GUARDED_BY(mutex_);
  Gauges gauges_ ABSL_GUARDED_BY(mutex_);  // of the last time the thread looked
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlockReader>> MakeUringReader(IoShape shape) {
  return UringReader::Create(shape);
}

}  // namespace odmoe
