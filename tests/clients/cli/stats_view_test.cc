// The live view as text: what is drawn is a function of the statistics and the window's size.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/console/table.h"
#include "clients/cli/stats/live_stats.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr DrawingStyle kPlain = {false, false};
const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

std::vector<LayerTelemetry> Layers(int count, uint64_t experts) {
  std::vector<LayerTelemetry> layers;
  for (int i = 0; i < count; ++i) {
    LayerTelemetry layer;
    layer.layer = i + 1;
    layer.expert_count = experts;
    layers.push_back(layer);
  }
  return layers;
}

RemoteStoreStats Model(const std::string& name, int layers, uint64_t experts) {
  RemoteStoreStats stats;
  stats.model = name;
  stats.epoch = 7;
  stats.uptime = absl::Minutes(62);
  stats.peak_rss_bytes = 5 * kMiB;
  stats.store.budget_bytes = 4 * kMiB;
  stats.store.slot_count = 4;
  stats.store.resident_experts = 2;
  stats.store.resident_bytes = 2 * kMiB;
  stats.store.pinned_experts = 1;
  stats.store.hits = 60;
  stats.store.misses = 40;
  stats.telemetry.layers = Layers(layers, experts);
  stats.telemetry.experts.resize(layers * experts);
  for (size_t i = 0; i < stats.telemetry.experts.size(); ++i) {
    stats.telemetry.experts[i] = {i, i % 2 == 0};
  }
  stats.telemetry.clients = {{3, "chat\x1b[2J", "default", false, {60, 40, 1, 4096, 0, 5}, 0}};
  return stats;
}

RemoteStoreStats ASecondLater(RemoteStoreStats stats) {
  stats.store.hits += 90;
  stats.store.misses += 10;
  stats.store.evictions += 5;
  stats.store.stall_ns += 250'000'000;
  stats.telemetry.reads[0].bytes += 10 * kMiB;
  stats.telemetry.reads[0].under_way = 2;
  stats.telemetry.queues.waiting_for_disk = 3;
  for (int i = 0; i < 100; ++i) stats.telemetry.stall_us.Add(1000);
  for (ExpertHeat& heat : stats.telemetry.experts) heat.demands += 1;
  return stats;
}

TEST(HeatMapTest, FoldsAnyModelIntoAnyWindow) {
  for (const auto& [layers, experts] : {std::pair{61, 384}, {1, 1}, {3, 7}, {200, 5}}) {
    const std::vector<LayerTelemetry> shape = Layers(layers, experts);
    std::vector<ExpertHeat> heat(static_cast<size_t>(layers) * experts, {2, true});
    for (const auto& [rows, columns] : {std::pair{1, 1}, {20, 100}, {61, 384}, {500, 500}}) {
      const FoldedHeat folded = FoldHeat(shape, heat, rows, columns);
      EXPECT_LE(folded.rows, rows);
      EXPECT_LE(folded.columns, columns);
      // Nothing is lost: every cell is the mean of experts that are all alike.
      for (const FoldedHeat::Cell& cell : folded.cells) {
        EXPECT_FALSE(cell.empty);
        EXPECT_EQ(cell.demands, 2.0);
        EXPECT_EQ(cell.resident, 1.0);
      }
    }
  }
}

TEST(HeatMapTest, LayersMayDiffer) {
  std::vector<LayerTelemetry> layers = Layers(2, 2);
  layers[1].expert_count = 4;
  const FoldedHeat heat = FoldHeat(layers, std::vector<ExpertHeat>(5, {1, false}), 10, 10);
  ASSERT_EQ(heat.columns, 4);
  EXPECT_FALSE(heat.cells[1].empty);
  EXPECT_TRUE(heat.cells[2].empty);   // layer 1 has two experts
  EXPECT_FALSE(heat.cells[6].empty);
  EXPECT_TRUE(heat.cells[7].empty);   // of which nothing was said
}

TEST(HeatMapTest, WithoutColoursLettersTellDemandsAndResidency) {
  const std::vector<ExpertHeat> heat = {{0, true}, {1, true},  {1000, true}, {0, false},
                                        {1, false}, {1000, false}};
  EXPECT_THAT(
      DrawHeatMap(Layers(1, 6), heat, 4, 80, kPlain),
      ElementsAre("   1 _.@ ,!", "_.:-=+*#%@ resident, ,! not; further right: more demands"));
  EXPECT_THAT(DrawHeatMap(Layers(1, 6), heat, 4, 8, kPlain), ElementsAre("   1 .@!", "_.:-=+*#"));
  EXPECT_TRUE(DrawHeatMap(Layers(1, 6), heat, 1, 80, kPlain).empty());
  EXPECT_TRUE(DrawHeatMap({}, {}, 9, 80, kPlain).empty());
}

TEST(HeatMapTest, WithColoursALineHasTwoLayers) {
  const std::vector<ExpertHeat> heat = {{8, true}, {8, true}, {8, false}, {0, false}};
  EXPECT_THAT(DrawHeatMap(Layers(2, 2), heat, 4, 80, {true, true}),
              ElementsAre("   1 \x1b[38;5;226m\x1b[48;5;159m\u2580\x1b[48;5;232m\u2580\x1b[0m",
                          "red to yellow: resident, blue to white: not; brighter: more"));
}

TEST(StoreViewTest, ShowsRatesOnceTwoSamplesAreThere) {
  StoreHistory history;
  history.Add(Model("kimi", 2, 4), kStart);
  history.Add(ASecondLater(Model("kimi", 2, 4)), kStart + absl::Seconds(1));
  EXPECT_EQ(absl::StrJoin(RenderStore(history, 40, 90, kPlain), "\n"),
            R"(memory    #####..... 2.00 MiB of 4.00 MiB, 2 experts of 4, 1 pinned
hit rate  90.0% now, 75.0% in all  #
demands   100/s, 10/s missed, 5/s evicted, stalled 250ms each second
disk      demands 10.00 MiB/s, prefetch 0 B/s, background 0 B/s, sent 0 B/s
queues    reading 2, wait for disk 3, for slot 0, to prefetch 0, background 0
p50/p99   reads -, stalls 768us/1ms, lives -, idle at eviction -, reuse gaps -
prefetch  0 asked, 0 read, 0 useful, 0 wasted, 0 dropped
CLIENT  NAME      TENANT    HITS  DEMANDS      READ  STALLED  FAILED
3       chat?[2J  default  60.0%      100  4.00 KiB      0ms       0
heat      layers downwards, experts to the right
   1 -!*!
   2 %!@!
_.:-=+*#%@ resident, ,! not; further right: more demands)");
}

TEST(StoreViewTest, ANarrowWindowGetsWholeFiguresOnMoreLines) {
  StoreHistory history;
  RemoteStoreStats stats = Model("kimi", 2, 4);
  stats.store.read_failures = 2;
  stats.telemetry.policy = "default";
  stats.telemetry.shadow_policies = {{"lru", 100, 30}, {"lfu", 100, 40}};
  history.Add(stats, kStart);
  EXPECT_EQ(absl::StrJoin(RenderStore(history, 12, 42, kPlain), "\n"),
            R"(FAILURES  2 reads failed,
          0 experts corrupt
memory    #####..... 2.00 MiB of 4.00 MiB,
          2 experts of 4, 1 pinned
hit rate  no demands now, 60.0% in all
demands   0/s, 0/s missed, 0/s evicted,
          stalled 0ms each second
disk      demands 0 B/s, prefetch 0 B/s,
          background 0 B/s, sent 0 B/s
queues    reading 0, wait for disk 0,
          for slot 0, to prefetch 0,
          background 0)");
}

TEST(StoreViewTest, TheBusiestTenantsAndClientsAreShown) {
  RemoteStoreStats stats = Model("kimi", 2, 4);
  for (uint64_t i = 0; i < 9; ++i) {
    TenantTelemetry tenant;
    tenant.name = absl::StrCat("team", i);
    tenant.use.hits = i;
    tenant.unanswered = 10 + i;
    for (uint64_t us = 0; us < i; ++us) tenant.stall_us.Add(1000);
    stats.telemetry.tenants.push_back(tenant);
    stats.telemetry.clients.push_back({10 + i, absl::StrCat("worker", i), "team0", false, {}, 0});
  }
  StoreHistory history;
  history.Add(stats, kStart);
  const std::string wide = absl::StrJoin(RenderStore(history, 24, 120, kPlain), "\n");
  EXPECT_THAT(wide, HasSubstr("\nteam8   0 B       -      0        18       0      768us/1ms"));
  EXPECT_THAT(wide, HasSubstr("\nteam6 "));
  EXPECT_THAT(wide, Not(HasSubstr("team5")));
  EXPECT_THAT(wide, Not(HasSubstr("worker")));  // they have demanded nothing
  const std::string narrow = absl::StrJoin(RenderStore(history, 24, 80, kPlain), "\n");
  EXPECT_THAT(narrow,
              HasSubstr("TENANT  RESIDENT  QUOTA    HITS  DEMANDS  READ  STALLED  FAILED\n"));
}

TEST(StoreViewTest, FitsEveryWindow) {
  StoreHistory history;
  history.Add(Model("kimi", 61, 384), kStart);
  for (const DrawingStyle& style : {kPlain, DrawingStyle{false, true}}) {
    for (int rows = 0; rows < 60; rows += 3) {
      for (const int columns : {1, 7, 40, 200}) {
        const auto lines = RenderStore(history, rows, columns, style);
        EXPECT_LE(lines.size(), static_cast<size_t>(rows));
        for (const std::string& line : lines) {
          EXPECT_LE(DisplayWidth(line), static_cast<size_t>(columns)) << line;
        }
      }
    }
  }
}

TEST(StoreViewTest, ARestartedStoreStartsAnew) {
  StoreHistory history;
  history.Add(ASecondLater(Model("kimi", 2, 4)), kStart);
  history.Add(ASecondLater(ASecondLater(Model("kimi", 2, 4))), kStart + absl::Seconds(1));
  EXPECT_EQ(history.hit_rates().size(), 1u);
  history.ResetHeat();
  EXPECT_EQ(history.heat()[3].demands, 0u);
  RemoteStoreStats other = Model("kimi", 2, 4);
  other.epoch = 8;
  history.Add(other, kStart + absl::Seconds(2));
  EXPECT_EQ(history.rates().demands, 0.0);
  EXPECT_TRUE(history.hit_rates().empty());
  EXPECT_EQ(history.heat()[3].demands, 3u);
}

TEST(LiveStatsTest, PagesThroughModelsAndServices) {
  ServiceSample store;
  store.endpoint = "host:1";
  store.asked = true;
  store.taken = kStart;
  store.models = {Model("kimi", 2, 4), Model("olmoe", 1, 2)};
  ServiceSample inference;
  inference.endpoint = "host:2";
  inference.asked = inference.inference = true;
  inference.taken = kStart;
  inference.requests.completion_tokens = 100;
  LiveStats live(kPlain, absl::Seconds(3));
  absl::Time now = kStart;
  EXPECT_THAT(live.Render(10, 80, now), ElementsAre(testing::_));
  live.Add({store, inference});
  EXPECT_THAT(live.Render(24, 80, now)[0], StartsWith("[1 kimi]  2 olmoe   3 host:2 "));
  EXPECT_THAT(live.Render(24, 80, now)[1],
              StartsWith("expert storage at host:1, up 1h02m, 0 clients, peak 5.00 MiB"));
  EXPECT_THAT(live.Render(24, 24, now)[0], StartsWith("[1/3 kimi] "));
  EXPECT_THAT(live.Render(24, 24, now)[0], EndsWith(" q quit"));
  now += absl::Seconds(4);
  EXPECT_EQ(live.Render(24, 80, now)[2], "NO NEWS for 4.0s: the service does not answer");
  now = kStart;
  EXPECT_TRUE(live.OnKey('\t'));
  EXPECT_THAT(live.Render(24, 80, now)[0], StartsWith(" 1 kimi  [2 olmoe]  3 host:2 "));
  EXPECT_TRUE(live.OnKey('3'));
  inference.requests.completion_tokens = 150;
  inference.taken += absl::Seconds(2);
  live.Add({store, inference});
  EXPECT_THAT(live.Render(24, 80, now)[3],
              StartsWith("tokens    25.0/s; 0 of prompts, 150 generated"));
  EXPECT_TRUE(live.OnKey('n'));
  store.status = absl::UnavailableError("gone\x1b[2J");
  live.Add({store, inference});
  EXPECT_EQ(live.Render(24, 80, now)[2], "AWAY, trying again: gone?[2J");
  EXPECT_EQ(live.Render(1, 5, now).size(), 1u);
  EXPECT_FALSE(live.OnKey('q'));
}

}  // namespace
}  // namespace odmoe
