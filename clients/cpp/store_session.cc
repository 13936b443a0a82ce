#include "clients/cpp/store_session.h"

#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "clients/cpp/expert_storage_proto.h"
#include "grpcpp/support/client_callback.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/base/status_macros.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage::v1;
using expert_storage_client::FromProto;
using expert_storage_client::ToProto;

// Requests waiting to be sent past which prefetches are dropped: they would be late.
constexpr size_t kPrefetchBacklog = 64;

class Session final : public StoreSession,
                      private grpc::ClientBidiReactor<v1::SessionRequest, v1::SessionResponse> {
 public:
  Session(std::shared_ptr<grpc::Channel> channel, Listener& listener)
      : listener_(listener), stub_(v1::ExpertStorageService::NewStub(channel)) {}

  ~Session() override {
    if (!started_) return;
    context_.TryCancel();
    done_.WaitForNotification();
  }

  absl::Status Attach(const std::string& model, const std::string& tenant, absl::Time deadline) {
    v1::SessionRequest request;
    request.mutable_attach()->set_model(model);
    request.mutable_attach()->set_tenant(tenant);
    request.mutable_attach()->set_client_name(absl::StrCat("process ", getpid()));
    stub_->async()->Session(&context_, this);
    started_ = true;
    // Writes start on callers' threads; the hold keeps the call open for them until a read fails.
    AddHold();
    StartRead(&response_);
    Send(std::move(request));
    StartCall();
    absl::MutexLock lock(&mutex_);
    const auto answered = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return attachment_.has_value() || !open_;
    };
    if (!mutex_.AwaitWithDeadline(absl::Condition(&answered), deadline)) {
      return absl::DeadlineExceededError("the expert store has not answered the attach in time");
    }
    if (attachment_.has_value()) return absl::OkStatus();
    const auto ended = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !lost_.ok(); };
    mutex_.Await(absl::Condition(&ended));
    return lost_;
  }

  // Set before Open returns, and never again.
  const Attachment& attachment() const override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return *attachment_;
  }

  void Acquire(int64_t request_id, absl::Span<const ExpertId> experts,
               absl::Duration timeout) override {
    v1::SessionRequest request;
    request.mutable_acquire()->set_request_id(request_id);
    for (ExpertId id : experts) *request.mutable_acquire()->add_experts() = ToProto(id);
    *request.mutable_acquire()->mutable_timeout() = ToProto(timeout);
    Send(std::move(request));
  }

  void Prefetch(absl::Span<const ExpertId> experts) override {
    v1::SessionRequest request;
    for (ExpertId id : experts) *request.mutable_prefetch()->add_experts() = ToProto(id);
    {
      absl::MutexLock lock(&mutex_);
      if (outgoing_.size() >= kPrefetchBacklog) return;
    }
    Send(std::move(request));
  }

 private:
  void Send(v1::SessionRequest request) {
    absl::MutexLock lock(&mutex_);
    if (!open_) return;
    outgoing_.push_back(std::move(request));
    if (!writing_) WriteNext();
  }

  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = true;
    StartWrite(&outgoing_.front());
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    outgoing_.pop_front();
    if (ok && open_ && !outgoing_.empty()) WriteNext();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      {
        absl::MutexLock lock(&mutex_);
        open_ = false;
      }
      RemoveHold();
      return;
    }
    if (response_.has_attached()) {
      OnAttached(response_.attached());
    } else if (response_.has_outcome()) {
      OnOutcome(response_.outcome());
    }
    StartRead(&response_);
  }

  void OnAttached(const v1::AttachResponse& reply) {
    absl::MutexLock lock(&mutex_);
    if (attachment_.has_value()) return;
    const auto size = [](int64_t bytes) {
      return static_cast<uint64_t>(std::max<int64_t>(0, bytes));
    };
    attachment_ = Attachment{reply.epoch(),
                             reply.socket_path(),
                             reply.token(),
                             size(reply.arena_bytes()),
                             size(reply.table_bytes()),
                             size(reply.pin_page_bytes()),
                             size(reply.max_batch())};
  }

  void OnOutcome(const v1::ExpertOutcome& outcome) {
    absl::StatusOr<uint32_t> slot = static_cast<uint32_t>(outcome.slot());
    if (outcome.code() != 0) {
      slot = absl::Status(static_cast<absl::StatusCode>(outcome.code()), outcome.message());
    } else if (outcome.slot() < 0 || outcome.slot() > UINT32_MAX) {
      slot = absl::InternalError(absl::StrCat("the expert store names slot ", outcome.slot()));
    }
    listener_.OnOutcome(outcome.request_id(), FromProto(outcome.expert()), std::move(slot));
  }

  void OnDone(const grpc::Status& grpc_status) override {
    absl::Status status = FromGrpcStatus(grpc_status);
    if (status.ok()) status = absl::UnavailableError("the expert store has ended the session");
    bool attached = false;
    {
      absl::MutexLock lock(&mutex_);
      open_ = false;
      attached = attachment_.has_value();
      lost_ = status;
    }
    if (attached) {
      status = absl::UnavailableError(
          absl::StrCat("the session with the expert store is lost: ", status.message()));
    }
    listener_.OnLost(status);
    done_.Notify();
  }

  Listener& listener_;
  const std::unique_ptr<v1::ExpertStorageService::Stub> stub_;
  grpc::ClientContext context_;
  v1::SessionResponse response_;  // being read
  bool started_ = false;
  absl::Notification done_;

  absl::Mutex mutex_;
  std::deque<v1::SessionRequest> outgoing_ ABSL_GUARDED_BY(mutex_);  // the first is being written
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool open_ ABSL_GUARDED_BY(mutex_) = true;
  std::optional<Attachment> attachment_ ABSL_GUARDED_BY(mutex_);
  absl::Status lost_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<StoreSession>> StoreSession::Open(
    std::shared_ptr<grpc::Channel> channel, const std::string& model, const std::string& tenant,
    Listener& listener, absl::Time deadline) {
  auto session = std::make_unique<Session>(std::move(channel), listener);
  ODMOE_RETURN_IF_ERROR(session->Attach(model, tenant, deadline));
  return session;
}

}  // namespace odmoe
