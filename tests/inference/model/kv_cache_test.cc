#include "services/inference/model/kv_cache.h"

#include <vector>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

ModelConfig SmallConfig() {
  ModelConfig config;
  config.layers = 3;
  config.kv_lora = 6;
  config.rope.dimensions = 4;
  return config;
}

TEST(KvCacheTest, RowsDoNotOverlapAndKeepWhatIsWritten) {
  KvCache cache(SmallConfig());
  const int64_t tokens = 2 * KvCache::kBlockTokens + 5;
  ASSERT_TRUE(cache.Reserve(tokens).ok());
  for (int32_t layer = 0; layer < 3; ++layer) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int i = 0; i < 10; ++i) cache.Row(layer, t)[i] = static_cast<float>(layer * 10000 + t);
    }
  }
  for (int32_t layer = 0; layer < 3; ++layer) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int i = 0; i < 10; ++i) {
        ASSERT_EQ(cache.Row(layer, t)[i], static_cast<float>(layer * 10000 + t));
      }
    }
  }
}

TEST(KvCacheTest, RowsOfABlockAreAdjacent) {
  KvCache cache(SmallConfig());
  ASSERT_TRUE(cache.Reserve(KvCache::kBlockTokens).ok());
  EXPECT_EQ(cache.Row(1, 7), cache.Row(1, 0) + 7 * 10);
}

TEST(KvCacheTest, GrowingKeepsTheRowsWhereTheyAre) {
  KvCache cache(SmallConfig());
  ASSERT_TRUE(cache.Reserve(1).ok());
  const float* row = cache.Row(2, 0);
  ASSERT_TRUE(cache.Reserve(1000).ok());
  EXPECT_EQ(cache.Row(2, 0), row);
}

TEST(KvCacheTest, BytesAreWholeBlocks) {
  const uint64_t block = KvCache::kBlockTokens * 3 * 10 * sizeof(float);
  EXPECT_EQ(KvCache::BytesFor(SmallConfig(), 0), 0u);
  EXPECT_EQ(KvCache::BytesFor(SmallConfig(), 1), block);
  EXPECT_EQ(KvCache::BytesFor(SmallConfig(), KvCache::kBlockTokens), block);
  EXPECT_EQ(KvCache::BytesFor(SmallConfig(), KvCache::kBlockTokens + 1), 2 * block);
}

TEST(KvCacheTest, LengthIsWhatWasExtended) {
  KvCache cache(SmallConfig());
  EXPECT_EQ(cache.length(), 0);
  cache.Extend(5);
  cache.Extend(1);
  EXPECT_EQ(cache.length(), 6);
}

}  // namespace
}  // namespace odmoe
