#include "services/core/experts/residency_table.h"

#include <cstring>
#include <limits>

#include "gtest/gtest.h"
#include "services/core/experts/expert_catalog.h"
#include "tests/core/experts/shared_bytes.h"

namespace odmoe {
namespace {

constexpr ResidencyShape kShape = {77, 10, 4, 8192};

class ResidencyTableTest : public ::testing::Test {
 protected:
  SharedBytes memory_{ResidencyTable::BytesFor(kShape.expert_count)};
  ResidencyTableWriter writer_ = ResidencyTableWriter::Format(memory_.span(), kShape);
  ResidencyTable reader_ = ResidencyTable::Attach(memory_.span()).value();
};

TEST_F(ResidencyTableTest, ANewTableIsEmpty) {
  EXPECT_EQ(reader_.shape(), kShape);
  EXPECT_FALSE(reader_.closed());
  for (int64_t e = 0; e < 10; ++e) EXPECT_FALSE(reader_.Find(e).has_value());
}

TEST_F(ResidencyTableTest, WhatIsPublishedIsFoundUntilUnpublished) {
  writer_.Publish(3, {0, 1});
  writer_.Publish(9, {std::numeric_limits<uint32_t>::max() - 1,
                      std::numeric_limits<uint32_t>::max()});
  EXPECT_EQ(reader_.Find(3), (Residency{0, 1}));
  EXPECT_EQ(reader_.Find(9), (Residency{std::numeric_limits<uint32_t>::max() - 1,
                                        std::numeric_limits<uint32_t>::max()}));
  writer_.Unpublish(3);
  EXPECT_FALSE(reader_.Find(3).has_value());
}

TEST_F(ResidencyTableTest, AnIndexOutOfRangeIsNotResident) {
  for (int64_t e : {int64_t{-1}, int64_t{10}, std::numeric_limits<int64_t>::max()}) {
    EXPECT_FALSE(reader_.Find(e).has_value());
  }
}

TEST_F(ResidencyTableTest, ClosingIsSeen) {
  writer_.Close();
  EXPECT_TRUE(reader_.closed());
}

TEST_F(ResidencyTableTest, AttachRefusesWhatIsNoTable) {
  EXPECT_FALSE(ResidencyTable::Attach(memory_.span().first(16)).ok());
  auto* header = reinterpret_cast<ResidencyHeader*>(memory_.span().data());
  const auto refused = [&] {
    const absl::Status status = ResidencyTable::Attach(memory_.span()).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  };
  for (auto damage : std::initializer_list<void (*)(ResidencyHeader&)>{
           [](ResidencyHeader& h) { h.magic ^= 1; },
           [](ResidencyHeader& h) { h.version = 9; },
           [](ResidencyHeader& h) { h.header_bytes = 8; },
           [](ResidencyHeader& h) { h.expert_count = 1000; },
           [](ResidencyHeader& h) { h.expert_count = std::numeric_limits<uint64_t>::max(); },
           [](ResidencyHeader& h) { h.slot_bytes = 0; },
           [](ResidencyHeader& h) { h.slot_count = uint64_t{1} << 40; }}) {
    ResidencyTableWriter::Format(memory_.span(), kShape);
    damage(*header);
    refused();
  }
}

}  // namespace
}  // namespace odmoe
