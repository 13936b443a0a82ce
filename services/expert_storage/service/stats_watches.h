// Stats and WatchStats: what the store tells of itself, once and again.
#pragma once

#include <list>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "odmoe/expert_storage/v1/expert_storage_service.pb.h"
#include "services/expert_storage/service/store_host.h"

namespace odmoe {

// Fills `response` from the model's store. INVALID_ARGUMENT: the name. NOT_FOUND.
absl::Status FillStats(const StoreHost& models, const expert_storage::v1::StatsRequest& request,
                       expert_storage::v1::StatsResponse& response);
// The same of the model named, or where none is of all that are open.
absl::Status FillStats(const StoreHost& models, const expert_storage::v1::StatsRequest& request,
                       expert_storage::v1::WatchStatsResponse& response);

// The WatchStats calls of a server. One thread looks after all of them; a call has one message at
// most, made when the one before has left, so a slow reader costs no more memory than a quick one.
// Thread-safe.
class StatsWatches {
 public:
  static constexpr size_t kMaxWatches = 64;

  // `models` outlives it.
  explicit StatsWatches(const StoreHost& models);
  // Every call has ended before.
  ~StatsWatches();

  grpc::ServerWriteReactor<expert_storage::v1::WatchStatsResponse>* Start(
      const expert_storage::v1::WatchStatsRequest& request);
  // Ends every watch, and takes no more.
  void Drain();

 private:
  class Watch;

  void Run();
  Watch* NextDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const StoreHost& models_;
  absl::Mutex mutex_;
  std::list<std::shared_ptr<Watch>> watches_ ABSL_GUARDED_BY(mutex_);  // until their OnDone
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;  // the thread is to look again
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace odmoe
