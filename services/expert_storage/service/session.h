// One client's Session stream.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/base/thread_pool.h"
#include "services/expert_storage/service/descriptor_server.h"
#include "services/expert_storage/service/store_host.h"

namespace odmoe {

class Session;

// The sessions of a server, to be ended together. Thread-safe.
class SessionSet {
 public:
  // False: the set is draining, the session must end.
  bool Add(const std::shared_ptr<Session>& session);
  void Remove(Session* session);
  // Ends every session once what it was asked for is answered, and takes no more.
  void Drain();

 private:
  absl::Mutex mutex_;
  absl::flat_hash_map<Session*, std::weak_ptr<Session>> sessions_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

// What sessions need of their server; outlives them.
struct SessionContext {
  StoreHost& models;
  DescriptorServer& descriptors;
  ThreadPool& executor;
  SessionSet& sessions;
};

// Reads one request at a time and handles it on the executor, so that gRPC's threads never wait.
// While kMaxUnanswered outcomes are owed to the client, no more is read from it: its own flow is
// held up, not the store's memory. Owns itself until gRPC is done with it; outcomes that come
// later find it ended.
class Session final
    : public grpc::ServerBidiReactor<expert_storage::v1::SessionRequest,
                                     expert_storage::v1::SessionResponse> {
 public:
  static constexpr uint64_t kMaxUnanswered = 65536;

  static Session* Start(const SessionContext& context);
  // Ends it once nothing is owed to the client.
  void Drain();

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  using Request = expert_storage::v1::SessionRequest;
  using Response = expert_storage::v1::SessionResponse;

  explicit Session(const SessionContext& context) : context_(context) {}

  // On the executor, one at a time.
  void HandleRequest();
  absl::Status Attach(const expert_storage::v1::AttachRequest& request);
  absl::StatusOr<std::string> OfferDescriptors();
  absl::Status Acquire(const expert_storage::v1::AcquireRequest& request);
  absl::Status Prefetch(const expert_storage::v1::PrefetchRequest& request);

  void Deliver(int64_t request_id, int64_t expert, absl::StatusOr<uint32_t> slot);
  void Send(Response response);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayRead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends the lease, then the stream: who sees the stream's end finds its pins gone. gRPC's Finish
  // follows the last write.
  void End(const absl::Status& status);
  // Ends what the store holds for the client. May be called again.
  void ReleaseLease();
  void FinishIfQuiet() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const SessionContext context_;
  std::shared_ptr<Session> self_;  // until OnDone
  Request request_;                // being read or handled
  // Set by Attach on the executor, before anything that reads them can run.
  std::shared_ptr<HostedModel> model_;
  std::shared_ptr<StoreClient> client_;
  std::string token_;

  absl::Mutex mutex_;
  std::deque<Response> outgoing_ ABSL_GUARDED_BY(mutex_);  // the first is being written
  uint64_t unanswered_ ABSL_GUARDED_BY(mutex_) = 0;        // outcomes owed and not yet written
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool handling_ ABSL_GUARDED_BY(mutex_) = false;      // a request is on the executor
  bool read_wanted_ ABSL_GUARDED_BY(mutex_) = false;   // held up by kMaxUnanswered
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;  // the lease, after ended_
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace odmoe
