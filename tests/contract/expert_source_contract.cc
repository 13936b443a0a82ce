#include "tests/contract/expert_source_contract.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "gmock/gmock.h"
#include "services/core/base/units.h"
#include "services/core/io/aligned_buffer.h"
#include "tests/support/expert_directory.h"

namespace odmoe {
namespace {

AlignedBuffer RoomFor(const ExpertCatalog& catalog) {
  return AlignedBuffer::Allocate(RoundUp(catalog.max_expert_bytes(), kDirectIoAlignment)).value();
}

}  // namespace

void ExpertSourceContractTest::SetUp() {
  MemoryExpertSource::RandomOptions options;
  options.first_layer = 1;
  options.layers = kLayers;
  options.experts_per_layer = kExperts;
  // Not a whole number of pages, and more than 256 KiB, which the direct sources here ask for at
  // once.
  options.dim = 160;
  options.ffn = 161;
  truth_ = WriteRandomExperts(directory_.path(), options);
  source_ = GetParam().make(directory_.path(), options, keep_);
  ASSERT_NE(source_, nullptr);
}

TEST_P(ExpertSourceContractTest, KnowsTheModelsExperts) {
  const ExpertCatalog& catalog = source_->catalog();
  EXPECT_EQ(catalog.expert_count(), kLayers * kExperts);
  EXPECT_EQ(catalog.total_bytes(), truth_->catalog().total_bytes());
  for (const LayerExperts& layer : truth_->catalog().layers()) {
    const LayerExperts* found = catalog.FindLayer(layer.layer);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->layout, layer.layout);
    // A GGUF file has no hashes.
    if (!found->xxh3.empty()) {
      EXPECT_EQ(found->xxh3, layer.xxh3);
    }
  }
}

TEST_P(ExpertSourceContractTest, ReadsEveryExpertsBytes) {
  AlignedBuffer buffer = RoomFor(source_->catalog());
  for (int64_t index = 0; index < source_->catalog().expert_count(); ++index) {
    const ExpertId id = source_->catalog().IdOf(index);
    std::fill(buffer.span().begin(), buffer.span().end(), std::byte{0xee});
    const absl::Status status = ReadAndWait(*source_, id, buffer.span());
    ASSERT_TRUE(status.ok()) << status;
    const auto expected = truth_->Bytes(id);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), buffer.span().begin()))
        << ExpertName(id);
  }
}

TEST_P(ExpertSourceContractTest, ReadsManyAtOnce) {
  const int64_t count = source_->catalog().expert_count();
  std::vector<AlignedBuffer> buffers;
  for (int64_t i = 0; i < count; ++i) buffers.push_back(RoomFor(source_->catalog()));
  std::vector<absl::Status> results(count);
  absl::BlockingCounter pending(static_cast<int>(count));
  for (int64_t i = 0; i < count; ++i) {
    source_->Read(source_->catalog().IdOf(i), buffers[i].span(), [&, i](absl::Status status) {
      results[i] = std::move(status);
      pending.DecrementCount();
    });
  }
  pending.Wait();
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_TRUE(results[i].ok()) << results[i];
    const auto expected = truth_->Bytes(source_->catalog().IdOf(i));
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), buffers[i].span().begin()));
  }
}

TEST_P(ExpertSourceContractTest, AnUnknownExpertIsNotFound) {
  AlignedBuffer buffer = RoomFor(source_->catalog());
  for (const ExpertId id : {ExpertId{0, 0}, ExpertId{1, kExperts}, ExpertId{1, -1},
                            ExpertId{-1, 0}, ExpertId{1 << 30, 0}}) {
    EXPECT_TRUE(absl::IsNotFound(ReadAndWait(*source_, id, buffer.span()))) << ExpertName(id);
  }
}

TEST_P(ExpertSourceContractTest, TooLittleRoomIsTheCallersFault) {
  AlignedBuffer buffer = RoomFor(source_->catalog());
  EXPECT_TRUE(absl::IsInvalidArgument(
      ReadAndWait(*source_, {1, 0}, buffer.span().first(kDirectIoAlignment))));
}

TEST_P(ExpertSourceContractTest, DestructionWaitsForReadsUnderWay) {
  std::vector<AlignedBuffer> buffers;
  std::atomic<int> done{0};
  const int64_t count = source_->catalog().expert_count();
  for (int64_t i = 0; i < count; ++i) {
    buffers.push_back(RoomFor(source_->catalog()));
    source_->Read(source_->catalog().IdOf(i), buffers.back().span(),
                  [&done](absl::Status) { ++done; });
  }
  source_.reset();
  EXPECT_EQ(done, count);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ExpertSourceContractTest);

}  // namespace odmoe
