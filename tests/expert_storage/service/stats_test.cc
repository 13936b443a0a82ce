// Stats, WatchStats and metrics of a service.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/http/metrics_server.h"
#include "services/expert_storage/service/stats_watches.h"
#include "services/expert_storage/service/store_metrics.h"
#include "tests/support/expert_directory.h"
#include "tests/support/expert_storage_server.h"
#include "tests/support/metrics_text.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kOften = absl::Milliseconds(50);

class StatsTest : public ::testing::Test {
 protected:
  StatsTest() : server_({{directory_ / "root"}, true}) {
    WriteRandomExperts(directory_ / "root/model", {});
    admin_ = ExpertStorageAdmin::Connect(server_.endpoint).value();
  }
  void OpenTheModel() {
    const auto model = admin_->OpenModel(directory_ / "root/model", ParseBudget("100%").value(),
                                         SourceKind::kAuto);
    ASSERT_TRUE(model.ok()) << model.status();
  }
  void Demand(const std::vector<ExpertId>& ids) {
    const auto store = ConnectSharedMemoryStore(server_.endpoint, "model").value();
    const auto batch = store->Acquire(ids, absl::Now() + absl::Minutes(1)).value();
    for (size_t i = 0; i < ids.size(); ++i) ASSERT_TRUE(batch->Wait(i).ok());
  }

  TemporaryDirectory directory_;
  ExpertStorageTestServer server_;
  std::unique_ptr<ExpertStorageAdmin> admin_;
};

TEST_F(StatsTest, StatsHaveEachExpertsHeatWhereItIsAskedFor) {
  OpenTheModel();
  Demand({{0, 1}, {1, 2}});
  EXPECT_TRUE(admin_->Stats("")->telemetry.experts.empty());
  const RemoteStoreStats stats = admin_->Stats("model", true).value();
  ASSERT_EQ(stats.telemetry.experts.size(), 8u);
  EXPECT_EQ(stats.telemetry.experts[1], (ExpertHeat{1, true}));
  EXPECT_EQ(stats.telemetry.experts[2], ExpertHeat());
  EXPECT_EQ(stats.telemetry.layers[1].misses, 1u);
  EXPECT_EQ(stats.telemetry.reads[0].reads, 2u);
}

TEST_F(StatsTest, AWatchFollowsModelsAsTheyOpenAndClose) {
  Cancellation cancellation;
  int step = 0;
  const absl::Status status = admin_->WatchStats(
      "", kOften, true, &cancellation, [&](std::vector<RemoteStoreStats> models) {
        if (step == 0) {
          EXPECT_TRUE(models.empty());
          OpenTheModel();
          step = 1;
        } else if (step == 1 && !models.empty()) {
          EXPECT_EQ(models[0].model, "model");
          EXPECT_EQ(models[0].telemetry.experts.size(), 8u);
          Demand({{0, 3}});
          step = 2;
        } else if (step == 2 && models[0].store.misses == 1 && models[0].store.clients == 0) {
          EXPECT_TRUE(admin_->CloseModel("model").ok());
          step = 3;
        } else if (step == 3 && models.empty()) {
          step = 4;
          return false;
        }
        return true;
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(step, 4);
}

TEST_F(StatsTest, AWatchOfOneModelEndsWithIt) {
  OpenTheModel();
  const absl::Status status =
      admin_->WatchStats("model", kOften, false, nullptr, [&](std::vector<RemoteStoreStats>) {
        admin_->CloseModel("model").IgnoreError();
        return true;
      });
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
}

TEST_F(StatsTest, AWatchIsCancelledAtOnceAndMakesRoomForAnother) {
  std::vector<std::unique_ptr<Cancellation>> cancellations;
  std::vector<std::thread> watchers;
  std::atomic<size_t> watching{0};
  for (size_t i = 0; i < StatsWatches::kMaxWatches; ++i) {
    cancellations.push_back(std::make_unique<Cancellation>());
    watchers.emplace_back([&, i] {
      bool first = true;
      const absl::Status status =
          admin_->WatchStats("", absl::Hours(1), false, cancellations[i].get(),
                             [&](std::vector<RemoteStoreStats>) {
                               watching += first ? 1 : 0;
                               first = false;
                               return true;
                             });
      EXPECT_TRUE(status.ok()) << status;
    });
  }
  while (watching < StatsWatches::kMaxWatches) std::this_thread::yield();
  const auto once = [&] {
    return admin_->WatchStats("", kOften, false, nullptr,
                              [](std::vector<RemoteStoreStats>) { return false; });
  };
  EXPECT_TRUE(absl::IsResourceExhausted(once()));
  cancellations[0]->Cancel();
  watchers[0].join();
  absl::Status status;
  do {  // the server hears of it a little later
    status = once();
  } while (absl::IsResourceExhausted(status));
  EXPECT_TRUE(status.ok()) << status;
  for (auto& cancellation : cancellations) cancellation->Cancel();
  for (size_t i = 1; i < watchers.size(); ++i) watchers[i].join();
}

TEST_F(StatsTest, ADrainingServiceEndsItsWatches) {
  const absl::Status status =
      admin_->WatchStats("", absl::Hours(1), false, nullptr, [&](std::vector<RemoteStoreStats>) {
        server_.service->Drain();
        return true;
      });
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

TEST_F(StatsTest, AReaderThatDoesNotReadHoldsUpNobody) {
  OpenTheModel();
  absl::Notification first;
  absl::Notification go_on;
  Cancellation cancellation;
  std::thread slow([&] {
    EXPECT_TRUE(admin_->WatchStats("", kOften, true, &cancellation,
                                   [&](std::vector<RemoteStoreStats>) {
                                     if (!first.HasBeenNotified()) first.Notify();
                                     go_on.WaitForNotification();
                                     return false;
                                   })
                    .ok());
  });
  first.WaitForNotification();
  int seen = 0;
  EXPECT_TRUE(admin_->WatchStats("", kOften, false, nullptr,
                                 [&](std::vector<RemoteStoreStats>) { return ++seen < 5; })
                  .ok());
  EXPECT_TRUE(admin_->Stats("").ok());
  go_on.Notify();
  slow.join();
}

TEST_F(StatsTest, MetricsAreServedAsPrometheusReadsThem) {
  OpenTheModel();
  Demand({{0, 1}, {0, 2}});
  const auto metrics = MetricsServer::Start("127.0.0.1:0", [this] {
                         return CollectStoreMetrics(server_.models);
                       }).value();
  const std::string text = FetchMetrics(metrics->url());
  ExpectMetricsText(text);
  for (const char* line : {"misses_total{model=\"model\"} 2", "slots{model=\"model\"} 8",
                           "reads_total{model=\"model\",cause=\"demand\"} 2",
                           "layer_misses_total{model=\"model\",layer=\"0\"} 2",
                           "tenant_misses_total{model=\"model\",tenant=\"default\"} 2",
                           "tenant_unanswered_misses{model=\"model\",tenant=\"default\"} 0",
                           "tenant_stall_seconds_count{model=\"model\",tenant=\"default\"} 2",
                           "stall_seconds_count{model=\"model\"} 2",
                           "stall_seconds_bucket{model=\"model\",le=\"+Inf\"} 2"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("\nodmoe_expert_storage_", line, "\n")));
  }
  EXPECT_THAT(text, HasSubstr("\nprocess_open_fds "));
}

TEST(StoreMetricsTest, AHistogramsBucketsAddUp) {
  ModelMetrics model;
  model.model = "a\"b\\c";
  for (const uint64_t us : {1, 3, 4, 1000}) model.telemetry.stall_us.Add(us);
  const std::string text = StoreMetricsText({model});
  ExpectMetricsText(text);
  for (const char* line : {"stall_seconds_bucket{model=\"a\\\"b\\\\c\",le=\"1e-06\"} 1\n",
                           "le=\"4e-06\"} 3\n", "le=\"0.001024\"} 4\n", "le=\"+Inf\"} 4\n",
                           "stall_seconds_sum{model=\"a\\\"b\\\\c\"} 0.001008\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(StoreMetricsText({}), HasSubstr("# TYPE odmoe_expert_storage_hits_total counter"));
}

}  // namespace
}  // namespace odmoe
