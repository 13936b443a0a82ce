#include "clients/cpp/shared_memory_expert_store.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/mapped_arena.h"
#include "clients/cpp/mapped_descriptor.h"
#include "clients/cpp/store_session.h"
#include "services/core/base/status_macros.h"
#include "services/core/experts/pinned_batch.h"
#include "services/core/experts/segment_message.h"
#include "services/core/rpc/channel.h"

namespace odmoe {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(10);
// A store that is gone refuses at once; this bounds the patience with one that is busy starting.
constexpr absl::Duration kRedialTimeout = absl::Seconds(5);
constexpr absl::Duration kRedialInterval = absl::Milliseconds(100);
// The store gives up an expert after an hour at the latest.
constexpr absl::Duration kLongestWait = absl::Hours(1);

// One session with one epoch of a store. Ends with its last batch.
class Connection final : public StoreSession::Listener,
                         public BatchOwner,
                         public std::enable_shared_from_this<Connection> {
 public:
  // `catalog` is that of the store at `endpoint`, and `admin` dials it.
  static absl::StatusOr<std::shared_ptr<Connection>> Open(
      const std::string& endpoint, const std::string& tenant, const RemoteModel& model,
      std::shared_ptr<const ExpertCatalog> catalog, std::unique_ptr<ExpertStorageAdmin> admin,
      absl::Time deadline) {
    ODMOE_ASSIGN_OR_RETURN(auto channel, MakeChannel(endpoint));
    auto connection = std::make_shared<Connection>(std::move(catalog), model, std::move(admin));
    ODMOE_ASSIGN_OR_RETURN(connection->session_, StoreSession::Open(std::move(channel), model.name,
                                                                    tenant, *connection, deadline));
    ODMOE_RETURN_IF_ERROR(connection->MapMemory(model));
    return connection;
  }

  Connection(std::shared_ptr<const ExpertCatalog> catalog, const RemoteModel& model,
             std::unique_ptr<ExpertStorageAdmin> admin)
      : catalog_(std::move(catalog)),
        model_(model.name),
        admin_(std::move(admin)) {}

  ~Connection() override {
    // Before the memory goes: outcomes that still come drop their pins in it.
    session_.reset();
    if (follower_.joinable()) {
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t n = write(wake_.get(), &one, sizeof(one));
      follower_.join();
    }
  }

  bool lost() const { return lost_.load(std::memory_order_acquire) || view_->table.closed(); }
  // The store's changes with its budget, ours with our tenant.
  size_t max_batch() const {
    const uint64_t ours = session_->attachment().max_batch;
    const uint64_t all = view_->table.max_batch();
    return ours == 0 ? all : std::min(ours, all);
  }
  bool Resident(ExpertId id) const { return view_->Resident(id); }

  absl::StatusOr<StoreStats> Stats() {
    ODMOE_ASSIGN_OR_RETURN(const RemoteStoreStats stats, admin_->Stats(model_));
    return stats.store;
  }

  absl::StatusOr<std::unique_ptr<PinnedBatch>> Acquire(absl::Span<const ExpertId> ids,
                                                       absl::Time deadline) {
    ODMOE_ASSIGN_OR_RETURN(auto batch,
                           PinnedBatch::PinResident(*view_, *this, ids, deadline, max_batch()));
    if (batch->board() != nullptr) AskFor(*batch, deadline);
    return batch;
  }

  void Prefetch(absl::Span<const ExpertId> ids) {
    std::vector<ExpertId> absent;
    for (ExpertId id : ids) {
      const int64_t expert = catalog_->IndexOf(id);
      if (expert >= 0 && !view_->table.Find(expert)) absent.push_back(id);
    }
    if (!absent.empty()) session_->Prefetch(absent);
  }

 private:
  struct Pending {
    std::shared_ptr<MissBoard> board;
    std::vector<int64_t> experts;  // by the board's entries; -1: answered
    size_t unanswered = 0;
  };

  absl::Status MapMemory(const RemoteModel& model) {
    const StoreSession::Attachment& attachment = session_->attachment();
    if (attachment.epoch != model.epoch) {
      return absl::UnavailableError("the expert store was restarted just now; try again");
    }
    ODMOE_ASSIGN_OR_RETURN(auto fetched,
                           FetchDescriptors(attachment.socket_path, attachment.token, 2));
    socket_ = std::move(fetched.socket);
    ODMOE_ASSIGN_OR_RETURN(
        table_, MappedDescriptor::Map(fetched.fds[0], attachment.table_bytes, /*writable=*/false));
    ODMOE_ASSIGN_OR_RETURN(
        pins_, MappedDescriptor::Map(fetched.fds[1], attachment.pin_page_bytes, /*writable=*/true));
    ODMOE_ASSIGN_OR_RETURN(const ResidencyTable table, ResidencyTable::Attach(table_->bytes()));
    const ResidencyShape shape = table.shape();
    if (shape.epoch != model.epoch ||
        shape.expert_count != static_cast<uint64_t>(catalog_->expert_count()) ||
        shape.slot_bytes < catalog_->max_expert_bytes() || shape.slot_count == 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          "residency table of epoch ", shape.epoch, ", ", shape.expert_count, " experts, ",
          shape.slot_count, " slots of ", shape.slot_bytes, " bytes does not fit the model's ",
          catalog_->expert_count(), " experts"));
    }
    ODMOE_ASSIGN_OR_RETURN(const PinPage page,
                           PinPage::Attach(pins_->bytes(), model.epoch, shape.slot_count));
    ODMOE_ASSIGN_OR_RETURN(arena_, MappedArena::Reserve(shape.arena()));
    for (bool more = true; more;) {
      ODMOE_ASSIGN_OR_RETURN(const SegmentMessage message, TakeMessage(page));
      more = message.more;
    }
    view_ = std::make_unique<ArenaView>(
        ArenaView{catalog_.get(), arena_->base(), shape.arena(), arena_->mapped(), table, page});
    wake_ = OwnedFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (wake_.get() < 0) {
      return absl::ResourceExhaustedError(absl::StrCat("eventfd: ", std::strerror(errno)));
    }
    follower_ = std::thread([this] { FollowSegments(); });
    return absl::OkStatus();
  }

  // Receives a message about segments, and does what it says.
  absl::StatusOr<SegmentMessage> TakeMessage(const PinPage& pins) {
    ODMOE_ASSIGN_OR_RETURN(const DescriptorPacket packet, ReceivePacket(socket_));
    ODMOE_ASSIGN_OR_RETURN(SegmentMessage message, DecodeSegmentMessage(packet.bytes));
    ODMOE_RETURN_IF_ERROR(arena_->Apply(message, packet.fds, pins));
    return message;
  }

  // Maps and unmaps as the store's budget changes, and says when it is done. Where it cannot, the
  // connection is lost: the store ends the session of who does not answer.
  void FollowSegments() {
    while (true) {
      pollfd polled[2] = {{wake_.get(), POLLIN, 0}, {socket_.get(), POLLIN, 0}};
      if (poll(polled, 2, -1) < 0 && errno != EINTR) return;
      if (polled[0].revents != 0) return;
      if (polled[1].revents == 0) continue;
      const auto message = TakeMessage(view_->page);
      if (!message.ok()) {
        OnLost(absl::UnavailableError(
            absl::StrCat("the expert store's memory is lost: ", message.status().message())));
        return;
      }
      if (message->sequence == 0) continue;
      SegmentMessage done;
      done.sequence = message->sequence;
      const std::string answer = EncodeSegmentMessage(done);
      [[maybe_unused]] const ssize_t n =
          send(socket_.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
  }

  void AskFor(const PinnedBatch& batch, absl::Time deadline) {
    std::vector<ExpertId> ids;
    for (int64_t expert : batch.missing()) ids.push_back(catalog_->IdOf(expert));
    int64_t request_id = 0;
    {
      absl::MutexLock lock(&mutex_);
      request_id = next_request_++;
      pending_[request_id] = {batch.board(), batch.missing(), batch.missing().size()};
    }
    // A little less than is left, so that the store's reason arrives before our own deadline; and
    // never infinite, which the message cannot carry.
    const absl::Duration left = std::min(deadline - absl::Now(), kLongestWait);
    session_->Acquire(request_id, ids, std::max(absl::Milliseconds(1), left - left / 10));
    // Lost before the request was entered: OnLost has not seen it.
    if (lost_.load(std::memory_order_acquire)) FailPending();
  }

  void OnOutcome(int64_t request_id, ExpertId id, absl::StatusOr<uint32_t> slot) override {
    const int64_t expert = catalog_->IndexOf(id);
    if (slot.ok() && *slot >= view_->page.slot_count()) {
      slot = absl::InternalError(absl::StrCat("the expert store names slot ", *slot, " of ",
                                              view_->page.slot_count()));
    } else if (slot.ok() && !view_->Mapped(*slot)) {
      // Pinned for us, in memory that we did not map in time: our session is ended.
      PinPage page = view_->page;
      page.Unpin(*slot);
      slot = absl::UnavailableError("the session with the expert store is lost");
    }
    std::shared_ptr<MissBoard> board;
    size_t entry = 0;
    {
      absl::MutexLock lock(&mutex_);
      const auto found = pending_.find(request_id);
      if (found == pending_.end()) return;
      Pending& pending = found->second;
      const auto at = std::find(pending.experts.begin(), pending.experts.end(), expert);
      if (expert < 0 || at == pending.experts.end()) return;
      *at = -1;
      entry = static_cast<size_t>(at - pending.experts.begin());
      board = pending.board;
      if (--pending.unanswered == 0) pending_.erase(found);
    }
    board->Deliver(entry, std::move(slot));
  }

  void OnLost(const absl::Status& status) override {
    {
      absl::MutexLock lock(&mutex_);
      lost_status_ = status;
    }
    lost_.store(true, std::memory_order_release);
    FailPending();
  }

  void FailPending() {
    absl::flat_hash_map<int64_t, Pending> failed;
    absl::Status status;
    {
      absl::MutexLock lock(&mutex_);
      failed.swap(pending_);
      status = lost_status_;
    }
    for (auto& [request_id, pending] : failed) pending.board->FailRest(status);
  }

  absl::Status Overdue(int64_t expert) const override {
    return absl::DeadlineExceededError(
        absl::StrCat(ExpertName(catalog_->IdOf(expert)), " has not arrived in time"));
  }

  // The store finds out from the pin page; what still comes for the batch, its board drops.
  void BatchReleased(const MissBoard*, bool) override {}

  const std::shared_ptr<const ExpertCatalog> catalog_;
  const std::string model_;
  const std::unique_ptr<ExpertStorageAdmin> admin_;
  // The socket goes last: its end tells the store that nothing is mapped any more.
  OwnedFd socket_;
  std::unique_ptr<MappedArena> arena_;
  std::unique_ptr<MappedDescriptor> table_;
  std::unique_ptr<MappedDescriptor> pins_;
  std::unique_ptr<ArenaView> view_;
  std::unique_ptr<StoreSession> session_;
  std::atomic<bool> lost_{false};
  OwnedFd wake_;          // ends follower_
  std::thread follower_;  // FollowSegments

  absl::Mutex mutex_;
  int64_t next_request_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_map<int64_t, Pending> pending_ ABSL_GUARDED_BY(mutex_);
  absl::Status lost_status_ ABSL_GUARDED_BY(mutex_);
};

// A batch that keeps its connection's memory mapped.
class MappedBatch final : public ExpertBatch {
 public:
  MappedBatch(std::shared_ptr<Connection> connection, std::unique_ptr<PinnedBatch> batch)
      : connection_(std::move(connection)), batch_(std::move(batch)) {}

  size_t size() const override { return batch_->size(); }
  bool Ready(size_t i) override { return batch_->Ready(i); }
  bool AwaitReady(size_t i, absl::Time until) override { return batch_->AwaitReady(i, until); }
  absl::StatusOr<ExpertView> Wait(size_t i) override { return batch_->Wait(i); }
  size_t hits() const override { return batch_->hits(); }

 private:
  std::shared_ptr<Connection> connection_;
  std::unique_ptr<PinnedBatch> batch_;
};

class SharedMemoryExpertStore final : public ExpertStore {
 public:
  SharedMemoryExpertStore(std::string endpoint, std::string model, std::string tenant)
      : endpoint_(std::move(endpoint)), model_(std::move(model)), tenant_(std::move(tenant)) {}

  absl::Status Connect() {
    absl::MutexLock lock(&mutex_);
    ODMOE_ASSIGN_OR_RETURN(auto admin, ExpertStorageAdmin::Connect(endpoint_, kConnectTimeout));
    ODMOE_ASSIGN_OR_RETURN(auto description, admin->DescribeModel(model_));
    catalog_ = std::make_shared<const ExpertCatalog>(std::move(description.catalog));
    ODMOE_ASSIGN_OR_RETURN(connection_,
                           Connection::Open(endpoint_, tenant_, description.model, catalog_,
                                            std::move(admin), absl::Now() + kConnectTimeout));
    return absl::OkStatus();
  }

  const ExpertCatalog& catalog() const override { return *catalog_; }

  absl::StatusOr<std::unique_ptr<ExpertBatch>> Acquire(absl::Span<const ExpertId> ids,
                                                       absl::Time deadline) override {
    ODMOE_ASSIGN_OR_RETURN(auto connection, Connected(deadline));
    ODMOE_ASSIGN_OR_RETURN(auto batch, connection->Acquire(ids, deadline));
    return std::make_unique<MappedBatch>(std::move(connection), std::move(batch));
  }

  void Prefetch(absl::Span<const ExpertId> ids) override {
    std::shared_ptr<Connection> connection;
    {
      absl::ReaderMutexLock lock(&mutex_);
      connection = connection_;
    }
    if (!connection->lost()) connection->Prefetch(ids);
  }

  bool Resident(ExpertId id) const override {
    absl::ReaderMutexLock lock(&mutex_);
    return !connection_->lost() && connection_->Resident(id);
  }

  size_t max_batch() const override {
    absl::ReaderMutexLock lock(&mutex_);
    return connection_->max_batch();
  }

  absl::StatusOr<StoreStats> Stats() override {
    ODMOE_ASSIGN_OR_RETURN(const auto connection, Connected(absl::Now() + kRedialTimeout));
    return connection->Stats();
  }

 private:
  // The connection, or a new one where the store is gone. One caller dials at a time, and not more
  // often than kRedialInterval; the others wait for what comes of it, and a call that comes too
  // soon waits its turn: the store may have come back since the last attempt.
  absl::StatusOr<std::shared_ptr<Connection>> Connected(absl::Time deadline) {
    {
      absl::ReaderMutexLock lock(&mutex_);
      if (!connection_->lost()) return connection_;
    }
    absl::MutexLock lock(&mutex_);
    const int64_t dials_before = dials_;
    const auto dialled = [this, dials_before]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return dials_ != dials_before;
    };
    const absl::Time turn = dialing_ ? absl::InfiniteFuture() : last_dial_ + kRedialInterval;
    const bool by_another =
        mutex_.AwaitWithDeadline(absl::Condition(&dialled), std::min(turn, deadline));
    if (!connection_->lost()) return connection_;
    if (by_another) return dial_status_;
    if (dialing_ || absl::Now() < turn) return absl::UnavailableError("the expert store is gone");
    Dial(deadline);
    ODMOE_RETURN_IF_ERROR(dial_status_);
    return connection_;
  }

  void Dial(absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    dialing_ = true;
    mutex_.Unlock();
    auto connection = Redial(std::min(deadline, absl::Now() + kRedialTimeout));
    mutex_.Lock();
    dialing_ = false;
    ++dials_;
    last_dial_ = absl::Now();
    dial_status_ = connection.status();
    if (!connection.ok()) return;
    connection_ = *std::move(connection);
  }

  absl::StatusOr<std::shared_ptr<Connection>> Redial(absl::Time deadline) {
    // By a new channel: the old one's waits longer and longer between its own attempts.
    ODMOE_ASSIGN_OR_RETURN(auto dialer,
                           ExpertStorageAdmin::Connect(endpoint_, deadline - absl::Now()));
    const auto description = dialer->DescribeModel(model_);
    if (!description.ok()) {
      return absl::UnavailableError(
          absl::StrCat("the expert store is gone: ", description.status().message()));
    }
    if (description->model.model_digest != catalog_->model_digest() ||
        description->catalog.total_bytes() != catalog_->total_bytes() ||
        description->catalog.expert_count() != catalog_->expert_count()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the expert store at ", endpoint_, " serves other experts now"));
    }
    // Kept with the connection, so that its calls have a patience of their own.
    ODMOE_ASSIGN_OR_RETURN(auto admin, ExpertStorageAdmin::Connect(endpoint_, kRedialTimeout));
    auto connection = Connection::Open(endpoint_, tenant_, description->model, catalog_,
                                       std::move(admin), deadline);
    if (!connection.ok()) {
      return absl::UnavailableError(
          absl::StrCat("the expert store is not back yet: ", connection.status().message()));
    }
    return connection;
  }

  const std::string endpoint_;
  const std::string model_;
  const std::string tenant_;
  std::shared_ptr<const ExpertCatalog> catalog_;  // of the first connection, kept for good

  mutable absl::Mutex mutex_;
  std::shared_ptr<Connection> connection_ ABSL_GUARDED_BY(mutex_);  // never null once connected
  bool dialing_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t dials_ ABSL_GUARDED_BY(mutex_) = 0;  // that have come to an end
  absl::Time last_dial_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Status dial_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertStore>> ConnectSharedMemoryStore(
    const std::string& endpoint, const std::string& model, const std::string& tenant) {
  auto store = std::make_unique<SharedMemoryExpertStore>(endpoint, model, tenant);
  ODMOE_RETURN_IF_ERROR(store->Connect());
  return store;
}

}  // namespace odmoe
