#include "services/expert_storage/service/proto_convert.h"

#include <cstring>
#include <functional>
#include <limits>

#include "clients/cpp/expert_storage_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage::v1;
namespace client = expert_storage_client;

LayerExperts Layer() {
  return {3, 2, MakeExpertLayout(DType::kQ8_0, DType::kF16, DType::kBF16, 64, 96).value(),
          {0xfedcba9876543210u, 1}};
}

TEST(ProtoConvertTest, ALayerComesBackAsItWas) {
  const LayerExperts layer = Layer();
  const auto back = client::FromProto(ToProto(layer));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->layer, layer.layer);
  EXPECT_EQ(back->expert_count, layer.expert_count);
  EXPECT_EQ(back->layout, layer.layout);
  EXPECT_EQ(back->xxh3, layer.xxh3);
}

TEST(ProtoConvertTest, BiasesComeBackAsTheyWere) {
  LayerExperts layer = Layer();
  layer.layout = MakeExpertLayout(DType::kMXFP4, DType::kMXFP4, DType::kMXFP4, 64, 96,
                                  {.w1 = DType::kF32, .w2 = DType::kBF16, .w3 = DType::kF32})
                     .value();
  const auto back = client::FromProto(ToProto(layer));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->layout, layer.layout);
  EXPECT_EQ(back->layout.w2_bias.columns, 64);
}

TEST(ProtoConvertTest, AClientRefusesALayoutThatIsNone) {
  const v1::LayerExperts good = ToProto(Layer());
  const std::vector<std::function<void(v1::LayerExperts&)>> damages = {
      [](auto& l) { l.mutable_w1()->set_dtype(4); },
      [](auto& l) { l.mutable_w1()->set_rows(0); },
      [](auto& l) { l.mutable_w1()->set_rows(std::numeric_limits<int64_t>::max()); },
      [](auto& l) { l.mutable_w1()->set_columns(-64); },
      [](auto& l) { l.mutable_w2()->set_rows(65); },
      [](auto& l) { l.mutable_w2()->set_offset_bytes(0); },
      [](auto& l) { l.mutable_w3()->set_size_bytes(1); },
      [](auto& l) { l.set_expert_bytes(1); },
      [](auto& l) { l.clear_w3(); },
      [](auto& l) { l.mutable_w1_bias()->set_dtype(0); },
      [](auto& l) { l.mutable_w3_bias()->set_dtype(36); },
  };
  for (size_t i = 0; i < damages.size(); ++i) {
    v1::LayerExperts layer = good;
    damages[i](layer);
    EXPECT_TRUE(absl::IsInvalidArgument(client::FromProto(layer).status())) << i;
  }
}

TEST(ProtoConvertTest, BudgetsComeBackAsTheyWere) {
  for (const Budget& budget : {Budget{}, Budget{Budget::Kind::kBytes, 123456, 0},
                               Budget{Budget::Kind::kPercent, 0, 12.5}}) {
    const auto back = FromProto(client::ToProto(budget));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->kind, budget.kind);
    EXPECT_EQ(back->bytes, budget.bytes);
    EXPECT_EQ(back->percent, budget.percent);
  }
  EXPECT_EQ(FromProto(v1::Budget())->kind, Budget::Kind::kAuto);
}

TEST(ProtoConvertTest, BudgetsOutOfRangeNameTheirField) {
  v1::Budget budget;
  for (int64_t bytes : {int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    budget.set_bytes(bytes);
    EXPECT_THAT(FromProto(budget).status().message(), ::testing::HasSubstr("budget.bytes"));
  }
  for (double percent : {0.0, -1.0, 100.5, std::numeric_limits<double>::quiet_NaN(),
                         std::numeric_limits<double>::infinity()}) {
    budget.set_percent(percent);
    EXPECT_THAT(FromProto(budget).status().message(), ::testing::HasSubstr("budget.percent"));
  }
}

TEST(ProtoConvertTest, SourceKindsComeBackAsTheyWere) {
  for (SourceKind kind : {SourceKind::kAuto, SourceKind::kDirect, SourceKind::kMapped}) {
    EXPECT_EQ(FromProto(client::ToProto(kind)).value(), kind);
    EXPECT_EQ(client::FromProto(ToProto(kind)).value(), kind);
  }
  EXPECT_TRUE(absl::IsInvalidArgument(FromProto(static_cast<v1::SourceKind>(9)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(client::FromProto(static_cast<v1::SourceKind>(9)).status()));
}

TEST(ProtoConvertTest, EveryCounterComesBackAsItWas) {
  StoreStats stats;
  // Distinct values, so that no two can be mixed up.
  uint64_t next = 1000;
  for (uint64_t* field : {&stats.budget_bytes, &stats.slot_bytes, &stats.slot_count,
                          &stats.resident_experts, &stats.resident_bytes, &stats.pinned_experts,
                          &stats.clients, &stats.huge_page_bytes,
                          &stats.locked_bytes, &stats.hits, &stats.misses, &stats.shared_misses,
                          &stats.evictions, &stats.reads, &stats.bytes_read, &stats.read_failures,
                          &stats.checksum_failures, &stats.stall_ns, &stats.prefetches,
                          &stats.prefetch_reads, &stats.prefetch_useful, &stats.prefetch_wasted,
                          &stats.prefetch_dropped}) {
    *field = next++;
  }
  const StoreStats back = client::FromProto(ToProto(stats));
  EXPECT_EQ(std::memcmp(&back, &stats, sizeof(stats)), 0);
  static_assert(sizeof(StoreStats) == 23 * sizeof(uint64_t), "a counter is missing above");
}

TEST(ProtoConvertTest, NegativeCountersAreNone) {
  v1::StatsResponse stats;
  stats.set_hits(-5);
  EXPECT_EQ(client::FromProto(stats).hits, 0u);
}

TEST(ProtoConvertTest, TimeoutsMustBePositive) {
  struct Case { int64_t seconds; int32_t nanos; bool ok; };
  for (const Case& c : {Case{0, 1, true}, Case{5, 0, true}, Case{0, 0, false}, Case{-1, 0, false},
                        Case{0, -1, false}, Case{1, 1'000'000'000, false},
                        Case{std::numeric_limits<int64_t>::max(), 0, true},
                        Case{std::numeric_limits<int64_t>::min(), 5, false}}) {
    v1::AcquireRequest request;
    request.mutable_timeout()->set_seconds(c.seconds);
    request.mutable_timeout()->set_nanos(c.nanos);
    const auto timeout = TimeoutFromProto("timeout", request.timeout());
    EXPECT_EQ(timeout.ok(), c.ok) << c.seconds << " s " << c.nanos;
    EXPECT_LE(timeout.value_or(absl::ZeroDuration()), absl::Hours(1));
  }
  EXPECT_FALSE(TimeoutFromProto("timeout", v1::AcquireRequest().timeout()).ok());
}

TEST(ProtoConvertTest, ExpertsOfARequestAreDistinctAndKnown) {
  const auto catalog = ExpertCatalog::Create("d", {Layer()}).value();
  v1::AcquireRequest request;
  EXPECT_TRUE(absl::IsInvalidArgument(ExpertIndices(request.experts(), catalog).status()));
  for (int i = 0; i < 3; ++i) *request.add_experts() = ToProto(ExpertId{3, i % 2});
  EXPECT_THAT(ExpertIndices(request.experts(), catalog).value(), ::testing::ElementsAre(0, 1));
  *request.add_experts() = ToProto(ExpertId{3, 2});
  EXPECT_TRUE(absl::IsNotFound(ExpertIndices(request.experts(), catalog).status()));
  request.clear_experts();
  for (int i = 0; i <= kMaxExpertsPerRequest; ++i) *request.add_experts() = ToProto(ExpertId{3, 0});
  EXPECT_TRUE(absl::IsInvalidArgument(ExpertIndices(request.experts(), catalog).status()));
}

TEST(ProtoConvertTest, PathsAreAbsoluteAndBounded) {
  for (const auto& [path, ok] : std::vector<std::pair<std::string, bool>>{
           {"/models/a", true}, {"", false}, {"models/a", false}, {"./a", false},
           {std::string("/a\0b", 4), false}, {"/" + std::string(kMaxPathBytes, 'x'), false}}) {
    v1::OpenModelRequest request;
    request.set_path(path);
    EXPECT_EQ(CheckOpenModel(request).ok(), ok) << path.substr(0, 20);
  }
}

}  // namespace
}  // namespace odmoe
