// One ReadExpert call.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/alarm.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "odmoe/expert_storage/v1/expert_storage_service.pb.h"
#include "services/core/base/thread_pool.h"
#include "services/expert_storage/service/store_host.h"

namespace odmoe {

// Pins the expert and streams it in chunks of at most 2 MiB. The messages are written as raw bytes
// around slices of the arena, so that no byte is copied before the transport takes it; each slice
// holds the pin until then. Owns itself until gRPC is done with it.
class ReadExpertStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                               public std::enable_shared_from_this<ReadExpertStream> {
 public:
  // Of a connection's window that gRPC keeps open there is little more than a chunk.
  static constexpr uint64_t kChunkBytes = 2 << 20;

  // `models` and `executor` outlive the call. A client that takes nothing for `patience` is cut
  // off: its stream holds a slot.
  static ReadExpertStream* Start(grpc::CallbackServerContext* context, grpc::ByteBuffer request,
                                 StoreHost& models, ThreadPool& executor,
                                 absl::Duration patience);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override { self_.reset(); }

 private:
  // A pin of the store's client for streams, dropped at destruction.
  struct Pin;

  ReadExpertStream(grpc::CallbackServerContext* context, StoreHost& models, absl::Time deadline,
                   absl::Duration patience)
      : context_(context), models_(models), deadline_(deadline), patience_(patience) {}

  absl::Status Begin(grpc::ByteBuffer request);
  void OnPinned(absl::StatusOr<uint32_t> slot);
  grpc::ByteBuffer HeaderMessage() const;
  grpc::ByteBuffer NextChunk() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Looks in `patience_` whether anything has been taken.
  void WatchProgress() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CheckProgress(uint64_t written_before);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::CallbackServerContext* const context_;  // valid until Finish
  StoreHost& models_;
  const absl::Time deadline_;
  const absl::Duration patience_;
  std::shared_ptr<ReadExpertStream> self_;  // until OnDone
  // Set by Begin, before anything that reads them can run; but OnCancel can any time.
  ExpertId expert_;
  uint64_t size_ = 0;

  absl::Mutex mutex_;
  std::shared_ptr<HostedModel> model_;  // written under the mutex, by Begin
  uint64_t offset_ ABSL_GUARDED_BY(mutex_) = 0;   // of the next chunk
  std::shared_ptr<Pin> pin_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer message_ ABSL_GUARDED_BY(mutex_);  // being written
  uint64_t written_ ABSL_GUARDED_BY(mutex_) = 0;  // messages the transport has taken
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace odmoe
