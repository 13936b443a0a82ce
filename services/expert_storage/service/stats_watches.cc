#include "services/expert_storage/service/stats_watches.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/status_macros.h"
#include "services/core/codec/telemetry_codec.h"
#include "services/core/rpc/status_codec.h"
#include "services/expert_storage/service/proto_convert.h"

namespace odmoe {

namespace stats_v1 = expert_storage::v1;

namespace {

absl::Status FillStatsOf(const HostedModel& model, bool with_experts,
                         stats_v1::StatsResponse& response) {
  ODMOE_ASSIGN_OR_RETURN(const StoreStats stats, model.store->Stats());
  response = ToProto(stats);
  response.set_model(model.name);
  response.set_epoch(model.store->epoch());
  response.set_peak_rss_bytes(static_cast<int64_t>(PeakRssBytes()));
  *response.mutable_uptime() = ToProto(absl::Now() - model.opened);
  *response.mutable_telemetry() = ToProto(model.store->Telemetry(with_experts));
  return absl::OkStatus();
}

}  // namespace

absl::Status FillStats(const StoreHost& models, const stats_v1::StatsRequest& request,
                       stats_v1::StatsResponse& response) {
  ODMOE_RETURN_IF_ERROR(CheckName("model", request.model()));
  ODMOE_ASSIGN_OR_RETURN(const auto model, models.Find(request.model()));
  return FillStatsOf(*model, request.with_experts(), response);
}

absl::Status FillStats(const StoreHost& models, const stats_v1::StatsRequest& request,
                       stats_v1::WatchStatsResponse& response) {
  response.clear_stats();
  if (!request.model().empty()) return FillStats(models, request, *response.add_stats());
  for (const auto& model : models.List()) {
    ODMOE_RETURN_IF_ERROR(FillStatsOf(*model, request.with_experts(), *response.add_stats()));
  }
  return absl::OkStatus();
}

// One call. Its state is guarded by the set's mutex; gRPC's Finish waits for the last write.
class StatsWatches::Watch final : public grpc::ServerWriteReactor<stats_v1::WatchStatsResponse> {
 public:
  Watch(StatsWatches& set, const stats_v1::WatchStatsRequest& request, absl::Duration interval)
      : set_(set), interval_(interval) {
    request_.set_model(request.model());
    request_.set_with_experts(request.with_experts());
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&set_.mutex_);
    writing_ = false;
    if (!ok) End(absl::CancelledError("the client is gone"));
    FinishIfQuiet();
    set_.changed_ = true;
  }

  void OnCancel() override {
    absl::MutexLock lock(&set_.mutex_);
    End(absl::CancelledError("the client is gone"));
  }

  void OnDone() override {
    std::shared_ptr<Watch> self;  // dies after the lock is gone
    absl::MutexLock lock(&set_.mutex_);
    for (auto it = set_.watches_.begin(); it != set_.watches_.end(); ++it) {
      if (it->get() != this) continue;
      self = std::move(*it);
      set_.watches_.erase(it);
      return;
    }
  }

  // On the set's thread, without the mutex.
  void Report(const StoreHost& models) {
    // The message is this thread's: no write is under way.
    const absl::Status status = FillStats(models, request_, message_);
    absl::MutexLock lock(&set_.mutex_);
    reporting_ = false;
    if (!status.ok()) End(status);
    if (!ended_) {
      due_ = absl::Now() + interval_;
      writing_ = true;
      StartWrite(&message_);
    }
    FinishIfQuiet();
  }

  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(set_.mutex_) {
    if (ended_) return;
    ended_ = true;
    end_status_ = status;
    FinishIfQuiet();
  }

  // When the next report is to be made; InfiniteFuture while one is on its way.
  absl::Time due() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(set_.mutex_) {
    return writing_ || reporting_ || ended_ ? absl::InfiniteFuture() : due_;
  }
  void BeginReport() ABSL_EXCLUSIVE_LOCKS_REQUIRED(set_.mutex_) { reporting_ = true; }

 private:
  void FinishIfQuiet() ABSL_EXCLUSIVE_LOCKS_REQUIRED(set_.mutex_) {
    if (!ended_ || finished_ || writing_ || reporting_) return;
    finished_ = true;
    Finish(ToGrpcStatus(end_status_));
  }

  StatsWatches& set_;
  const absl::Duration interval_;
  stats_v1::StatsRequest request_;
  stats_v1::WatchStatsResponse message_;
  absl::Time due_ ABSL_GUARDED_BY(set_.mutex_) = absl::InfinitePast();
  bool reporting_ ABSL_GUARDED_BY(set_.mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(set_.mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(set_.mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(set_.mutex_) = false;
  absl::Status end_status_ ABSL_GUARDED_BY(set_.mutex_);
};

StatsWatches::StatsWatches(const StoreHost& models)
    : models_(models), thread_([this] { Run(); }) {}

StatsWatches::~StatsWatches() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = changed_ = true;
  }
  thread_.join();
}

grpc::ServerWriteReactor<stats_v1::WatchStatsResponse>* StatsWatches::Start(
    const stats_v1::WatchStatsRequest& request) {
  const auto interval = WatchIntervalFromProto(request);
  auto watch = std::make_shared<Watch>(*this, request, interval.value_or(absl::Seconds(1)));
  absl::MutexLock lock(&mutex_);
  watches_.push_back(watch);
  changed_ = true;
  if (!interval.ok()) {
    watch->End(interval.status());
  } else if (draining_) {
    watch->End(absl::UnavailableError("the expert store is shutting down"));
  } else if (watches_.size() > kMaxWatches) {
    watch->End(absl::ResourceExhaustedError(
        absl::StrCat(kMaxWatches, " watches are open already")));
  }
  return watch.get();
}

void StatsWatches::Drain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  for (const auto& watch : watches_) {
    watch->End(absl::UnavailableError("the expert store is shutting down"));
  }
}

StatsWatches::Watch* StatsWatches::NextDue() {
  Watch* first = nullptr;
  for (const auto& watch : watches_) {
    if (watch->due() == absl::InfiniteFuture()) continue;
    if (first == nullptr || watch->due() < first->due()) first = watch.get();
  }
  return first;
}

void StatsWatches::Run() {
  while (true) {
    std::shared_ptr<Watch> due;
    {
      absl::MutexLock lock(&mutex_);
      Watch* next = NextDue();
      if (next == nullptr || next->due() > absl::Now()) {
        mutex_.AwaitWithDeadline(absl::Condition(&changed_),
                                 next == nullptr ? absl::InfiniteFuture() : next->due());
        changed_ = false;
        if (stopping_) return;
        continue;
      }
      next->BeginReport();
      for (const auto& watch : watches_) {
        if (watch.get() == next) due = watch;
      }
    }
    due->Report(models_);
  }
}

}  // namespace odmoe
