#include "services/expert_storage/sources/hash_book.h"

#include <algorithm>
#include <random>
#include <thread>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/experts/memory_expert_source.h"
#include "xxhash.h"

namespace odmoe {
namespace {

TEST(HashBookTest, TheCatalogsHashOrTheFirstOneSeen) {
  const auto source = MemoryExpertSource::Random({}).value();
  const ExpertCatalog& known = source->catalog();
  HashBook book(known);
  EXPECT_TRUE(book.Check(3, known.layers()[0].xxh3[3]).ok());
  const absl::Status wrong = book.Check(3, known.layers()[0].xxh3[3] + 1);
  EXPECT_TRUE(absl::IsDataLoss(wrong));
  EXPECT_THAT(wrong.message(), ::testing::HasSubstr("layer_00_expert_003 is corrupt"));

  std::vector<LayerExperts> layers = known.layers();
  for (LayerExperts& layer : layers) layer.xxh3.clear();
  const ExpertCatalog unknown = ExpertCatalog::Create("x", std::move(layers)).value();
  HashBook remembered(unknown);
  EXPECT_TRUE(remembered.Check(3, 10).ok());
  EXPECT_TRUE(remembered.Check(4, 11).ok());
  EXPECT_TRUE(remembered.Check(3, 10).ok());
  EXPECT_THAT(remembered.Check(3, 11).message(), ::testing::HasSubstr("at the first read it was"));
  EXPECT_EQ(remembered.failures(), 1);
}

TEST(RunningHashTest, PiecesInAnyOrderFromAnyThreadGiveTheHashOfAll) {
  std::mt19937 random(5);
  ThreadPool pool(2);
  for (const uint64_t size : {uint64_t{1}, uint64_t{4096}, uint64_t{700'001}, uint64_t{5 << 20}}) {
    std::vector<std::byte> bytes(size);
    for (auto& byte : bytes) byte = std::byte(random());
    std::vector<std::pair<uint64_t, uint64_t>> pieces;
    for (uint64_t at = 0; at < size; at += 100'000) {
      pieces.emplace_back(at, std::min<uint64_t>(size, at + 100'000));
    }
    std::shuffle(pieces.begin(), pieces.end(), random);
    const auto hash = RunningHash::Create(bytes, pool);
    const size_t half = pieces.size() / 2;
    const auto land = [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) hash->Landed(pieces[i].first, pieces[i].second);
    };
    std::thread other([&] { land(0, half); });
    land(half, pieces.size());
    other.join();
    absl::Notification over;
    uint64_t got = 0;
    hash->Finish([&](uint64_t result) {
      got = result;
      over.Notify();
    });
    over.WaitForNotification();
    EXPECT_EQ(got, XXH3_64bits(bytes.data(), size));
  }
}

TEST(RunningHashTest, AbandonedItLeavesTheBytesAlone) {
  ThreadPool pool(1);
  for (int round = 0; round < 20; ++round) {
    auto bytes = std::make_unique<std::vector<std::byte>>(4 << 20);
    const auto hash = RunningHash::Create(*bytes, pool);
    hash->Landed(0, 3 << 20);
    absl::Notification over;
    hash->Abandon([&] {
      bytes.reset();  // ASan tells who still looks
      over.Notify();
    });
    over.WaitForNotification();
  }
}

}  // namespace
}  // namespace odmoe
