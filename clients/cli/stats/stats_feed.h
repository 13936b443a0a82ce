// The newest statistics of several services, gathered in the background.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/remote_language_model.h"
#include "services/core/base/cancellation.h"

namespace odmoe {

// What a service said last.
struct ServiceSample {
  std::string endpoint;
  bool asked = false;        // there is an answer, good or bad
  absl::Status status;       // of the last call; not OK: the rest is of the one before
  bool inference = false;    // else expert storage
  std::vector<RemoteStoreStats> models;
  InferenceStats requests;   // where inference
  absl::Time taken = absl::InfinitePast();
};

// What an endpoint is asked as.
enum class ServiceKind { kAuto, kStorage, kInference };

// A thread each; each tries again where its service is away. Thread-safe.
class StatsFeed {
 public:
  // `on_news` is called from those threads.
  StatsFeed(const std::vector<std::string>& endpoints, ServiceKind kind, absl::Duration interval,
            std::function<void()> on_news);
  ~StatsFeed();

  // In the order of the endpoints.
  std::vector<ServiceSample> Latest() const;

 private:
  void Follow(size_t index, ServiceKind kind);
  absl::Status FollowStore(size_t index);
  absl::Status AskInference(size_t index);
  void Put(size_t index, const std::function<void(ServiceSample&)>& change);

  const absl::Duration interval_;
  const std::function<void()> on_news_;
  Cancellation stop_;
  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<ServiceSample> samples_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace odmoe
