#include "services/expert_storage/service/session.h"

#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/rpc/status_codec.h"
#include "services/expert_storage/service/proto_convert.h"

namespace odmoe {

namespace v1 = expert_storage_proto;

namespace {

// The socket that a client got its descriptors by.
class SocketChannel final : public SegmentChannel {
 public:
  explicit SocketChannel(std::shared_ptr<DescriptorServer::Peer> peer) : peer_(std::move(peer)) {}
  bool Send(const SegmentMessage& message, absl::Span<const int> fds) override {
    return peer_->Send(EncodeSegmentMessage(message), fds);
  }

 private:
  const std::shared_ptr<DescriptorServer::Peer> peer_;
};

absl::Status ShuttingDown() {
  return absl::UnavailableError("the expert store is shutting down");
}

}  // namespace

bool SessionSet::Add(const std::shared_ptr<Session>& session) {
  absl::MutexLock lock(&mutex_);
  sessions_[session.get()] = session;
  return !draining_;
}

void SessionSet::Remove(Session* session) {
  absl::MutexLock lock(&mutex_);
  sessions_.erase(session);
}

void SessionSet::Drain() {
  std::vector<std::shared_ptr<Session>> open;
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    for (const auto& [raw, weak] : sessions_) {
      if (auto session = weak.lock()) open.push_back(std::move(session));
    }
  }
  for (const auto& session : open) session->Drain();
}

Session* Session::Start(const SessionContext& context) {
  std::shared_ptr<Session> session(new Session(context));
  session->self_ = session;
  if (context.sessions.Add(session)) {
    session->StartRead(&session->request_);
  } else {
    session->End(ShuttingDown());
  }
  return session.get();
}

void Session::Drain() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    if (unanswered_ > 0) return;
  }
  End(ShuttingDown());
}

void Session::OnReadDone(bool ok) {
  if (!ok) {
    // The client has closed its side, or is gone.
    End(absl::OkStatus());
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    handling_ = true;
  }
  context_.executor.Schedule([self = self_] { self->HandleRequest(); });
}

void Session::HandleRequest() {
  absl::Status status;
  switch (request_.request_case()) {
    case Request::kAttach:
      status = Attach(request_.attach());
      break;
    case Request::kAcquire:
      status = Acquire(request_.acquire());
      break;
    case Request::kPrefetch:
      status = Prefetch(request_.prefetch());
      break;
    case Request::REQUEST_NOT_SET:
      status = InvalidField("request", "expected attach, acquire or prefetch");
      break;
  }
  bool ended = false;
  {
    absl::MutexLock lock(&mutex_);
    ended = ended_;
    if (!ended) {
      handling_ = false;
      if (status.ok() && MayRead()) StartRead(&request_);
    }
  }
  if (ended) {
    // An Attach that End overtook: what it has taken is given back here.
    ReleaseLease();
    absl::MutexLock lock(&mutex_);
    handling_ = false;
    FinishIfQuiet();
  } else if (!status.ok()) {
    End(status);
  }
}

bool Session::MayRead() {
  read_wanted_ = !ended_ && unanswered_ >= kMaxUnanswered;
  return !ended_ && !read_wanted_;
}

absl::Status Session::Attach(const v1::AttachRequest& request) {
  if (client_ != nullptr) return InvalidField("attach", "this session is attached already");
  ODMOE_RETURN_IF_ERROR(CheckName("attach.model", request.model()));
  ODMOE_RETURN_IF_ERROR(CheckName("attach.client_name", request.client_name()));
  ODMOE_RETURN_IF_ERROR(CheckName("attach.tenant", request.tenant()));
  ODMOE_ASSIGN_OR_RETURN(auto attached,
                         context_.models.Attach(request.model(), request.client_name(),
                                                request.tenant()));
  {
    absl::MutexLock lock(&mutex_);
    model_ = std::move(attached.model);
    client_ = std::move(attached.client);
    client_->expel = [weak = std::weak_ptr<Session>(self_)](absl::Status why) {
      if (const auto session = weak.lock()) session->End(why);
    };
  }
  ODMOE_ASSIGN_OR_RETURN(const std::string token, OfferDescriptors());
  {
    absl::MutexLock lock(&mutex_);
    token_ = token;
  }
  const CachingExpertStore& store = *model_->store;
  Response response;
  v1::AttachResponse& reply = *response.mutable_attached();
  reply.set_epoch(store.epoch());
  reply.set_client_slot(static_cast<int32_t>(client_->id));
  reply.set_socket_path(context_.descriptors.socket_path());
  reply.set_token(token);
  reply.set_arena_bytes(static_cast<int64_t>(store.arena().bytes()));
  reply.set_table_bytes(static_cast<int64_t>(store.table_region().bytes().size()));
  reply.set_pin_page_bytes(static_cast<int64_t>(client_->region->bytes().size()));
  reply.set_max_batch(static_cast<int64_t>(store.MaxBatchOf(client_->tenant)));
  Send(std::move(response));
  return absl::OkStatus();
}

absl::StatusOr<std::string> Session::OfferDescriptors() {
  DescriptorServer::Offer offer;
  // Weak: a client that never unmaps must not keep a closed model's store.
  const std::weak_ptr<HostedModel> weak = model_;
  offer.on_taken = [weak, client = client_](std::shared_ptr<DescriptorServer::Peer> peer) {
    const auto open = weak.lock();
    return open != nullptr &&
           open->store->BeginMapping(client, std::make_shared<SocketChannel>(std::move(peer)));
  };
  offer.on_packet = [weak, client = client_](absl::string_view packet) {
    const auto message = DecodeSegmentMessage(packet);
    if (!message.ok() || message->kind != SegmentMessage::Kind::kDone) return false;
    if (const auto open = weak.lock()) open->store->Acknowledge(client, message->sequence);
    return true;
  };
  offer.on_released = [weak, client = client_] {
    if (const auto open = weak.lock()) open->store->EndMapping(client);
  };
  return context_.descriptors.MakeOffer(std::move(offer));
}

absl::Status Session::Acquire(const v1::AcquireRequest& request) {
  if (client_ == nullptr) return absl::FailedPreconditionError("acquire before attach");
  if (request.request_id() <= 0) return InvalidField("acquire.request_id", "expected above 0");
  ODMOE_ASSIGN_OR_RETURN(const absl::Duration timeout,
                         TimeoutFromProto("acquire.timeout", request.timeout()));
  Demand demand;
  ODMOE_ASSIGN_OR_RETURN(demand.experts,
                         ExpertIndices(request.experts(), model_->store->catalog()));
  demand.client = client_;
  demand.deadline = absl::Now() + timeout;
  demand.deliver = [self = self_, id = request.request_id(), experts = demand.experts](
                       size_t position, absl::StatusOr<uint32_t> slot) {
    self->Deliver(id, experts[position], std::move(slot));
  };
  {
    absl::MutexLock lock(&mutex_);
    unanswered_ += demand.experts.size();
  }
  model_->store->Serve(std::move(demand));
  return absl::OkStatus();
}

absl::Status Session::Prefetch(const v1::PrefetchRequest& request) {
  if (client_ == nullptr) return absl::FailedPreconditionError("prefetch before attach");
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> experts,
                         ExpertIndices(request.experts(), model_->store->catalog()));
  model_->store->PrefetchFor(client_, experts);
  return absl::OkStatus();
}

void Session::Deliver(int64_t request_id, int64_t expert, absl::StatusOr<uint32_t> slot) {
  Response response;
  v1::ExpertOutcome& outcome = *response.mutable_outcome();
  outcome.set_request_id(request_id);
  *outcome.mutable_expert() = ToProto(model_->store->catalog().IdOf(expert));
  if (slot.ok()) {
    outcome.set_slot(*slot);
  } else {
    outcome.set_code(static_cast<int32_t>(slot.status().code()));
    outcome.set_message(std::string(slot.status().message()));
  }
  Send(std::move(response));
}

void Session::Send(Response response) {
  absl::MutexLock lock(&mutex_);
  if (ended_) return;
  if (response.has_outcome()) client_->undelivered.fetch_add(1, std::memory_order_relaxed);
  outgoing_.push_back(std::move(response));
  if (!writing_) WriteNext();
}

void Session::WriteNext() {
  writing_ = true;
  StartWrite(&outgoing_.front());
}

void Session::OnWriteDone(bool ok) {
  bool drained = false;
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (outgoing_.front().has_outcome()) {
      --unanswered_;
      client_->undelivered.fetch_sub(1, std::memory_order_relaxed);
    }
    outgoing_.pop_front();
    if (ended_) {
      FinishIfQuiet();
      return;
    }
    // A failed write means a client that is gone, of which the pending read will tell.
    if (ok && !outgoing_.empty()) WriteNext();
    if (read_wanted_ && MayRead()) StartRead(&request_);
    drained = draining_ && unanswered_ == 0;
  }
  if (drained) End(ShuttingDown());
}

void Session::OnCancel() { End(absl::CancelledError("the client is gone")); }

void Session::End(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    ended_ = true;
    end_status_ = status;
  }
  ReleaseLease();
  absl::MutexLock lock(&mutex_);
  released_ = true;
  FinishIfQuiet();
}

void Session::ReleaseLease() {
  std::shared_ptr<HostedModel> model;
  std::shared_ptr<StoreClient> client;
  std::string token;
  {
    absl::MutexLock lock(&mutex_);
    model = model_;
    client = client_;
    token = token_;
  }
  if (!token.empty()) context_.descriptors.Revoke(token);
  if (client != nullptr) model->store->EndSession(client);
}

void Session::FinishIfQuiet() {
  if (!released_ || finished_ || writing_ || handling_) return;
  finished_ = true;
  Finish(ToGrpcStatus(end_status_));
}

void Session::OnDone() {
  context_.sessions.Remove(this);
  // Deliveries under way may hold it a little longer.
  self_.reset();
}

}  // namespace odmoe
