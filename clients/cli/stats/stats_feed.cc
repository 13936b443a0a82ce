#include "clients/cli/stats/stats_feed.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr absl::Duration kRetry = absl::Seconds(1);  // where a service is away

}  // namespace

StatsFeed::StatsFeed(const std::vector<std::string>& endpoints, ServiceKind kind,
                     absl::Duration interval, std::function<void()> on_news)
    : interval_(interval), on_news_(std::move(on_news)), samples_(endpoints.size()) {
  for (size_t i = 0; i < endpoints.size(); ++i) samples_[i].endpoint = endpoints[i];
  for (size_t i = 0; i < endpoints.size(); ++i) {
    threads_.emplace_back([this, i, kind] { Follow(i, kind); });
  }
}

StatsFeed::~StatsFeed() {
  stop_.Cancel();
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

std::vector<ServiceSample> StatsFeed::Latest() const {
  absl::MutexLock lock(&mutex_);
  return samples_;
}

void StatsFeed::Put(size_t index, const std::function<void(ServiceSample&)>& change) {
  {
    absl::MutexLock lock(&mutex_);
    samples_[index].asked = true;
    change(samples_[index]);
  }
  on_news_();
}

void StatsFeed::Follow(size_t index, ServiceKind kind) {
  while (!stop_.cancelled()) {
    absl::Status status;
    absl::Duration pause = kRetry;
    if (kind != ServiceKind::kInference) status = FollowStore(index);
    // Both kinds of service live at endpoints that look alike: the wrong one says UNIMPLEMENTED.
    if (kind == ServiceKind::kAuto && absl::IsUnimplemented(status)) kind = ServiceKind::kInference;
    if (kind == ServiceKind::kInference) {
      status = AskInference(index);
      if (status.ok()) pause = interval_;
    }
    if (!status.ok()) {
      Put(index, [&](ServiceSample& sample) { sample.status = status; });
    }
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(&stopping_), pause);
  }
}

absl::Status StatsFeed::FollowStore(size_t index) {
  const std::string endpoint = Latest()[index].endpoint;
  ODMOE_ASSIGN_OR_RETURN(const auto admin, ExpertStorageAdmin::Connect(endpoint));
  return admin->WatchStats("", interval_, true, &stop_, [&](std::vector<RemoteStoreStats> models) {
    Put(index, [&](ServiceSample& sample) {
      sample.status = absl::OkStatus();
      sample.models = std::move(models);
      sample.taken = absl::Now();
    });
    return true;
  });
}

absl::Status StatsFeed::AskInference(size_t index) {
  ODMOE_ASSIGN_OR_RETURN(const InferenceStats stats, GetInferenceStats(Latest()[index].endpoint));
  Put(index, [&](ServiceSample& sample) {
    sample.status = absl::OkStatus();
    sample.inference = true;
    sample.requests = stats;
    sample.taken = absl::Now();
  });
  return absl::OkStatus();
}

}  // namespace odmoe
