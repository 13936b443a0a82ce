#include "services/core/experts/memory_expert_source.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "xxhash.h"

namespace odmoe {
namespace {

TEST(MemoryExpertSourceTest, RandomIsTheSameForTheSameSeed) {
  MemoryExpertSource::RandomOptions options;
  const auto a = MemoryExpertSource::Random(options).value();
  const auto b = MemoryExpertSource::Random(options).value();
  options.seed = 2;
  const auto c = MemoryExpertSource::Random(options).value();
  EXPECT_TRUE(std::ranges::equal(a->Bytes({1, 3}), b->Bytes({1, 3})));
  EXPECT_FALSE(std::ranges::equal(a->Bytes({1, 3}), c->Bytes({1, 3})));
}

TEST(MemoryExpertSourceTest, TheCatalogsHashesAreTheBytes) {
  const auto source = MemoryExpertSource::Random({}).value();
  for (const LayerExperts& layer : source->catalog().layers()) {
    for (int32_t e = 0; e < layer.expert_count; ++e) {
      const auto bytes = source->Bytes({layer.layer, e});
      EXPECT_EQ(layer.xxh3[e], XXH3_64bits(bytes.data(), bytes.size()));
    }
  }
}

TEST(MemoryExpertSourceTest, RefusesBytesThatDoNotFitTheCatalog) {
  const ExpertCatalog catalog = MemoryExpertSource::Random({}).value()->catalog();
  const size_t bytes = catalog.max_expert_bytes();
  std::vector<std::vector<std::byte>> experts(catalog.expert_count(),
                                              std::vector<std::byte>(bytes));
  EXPECT_TRUE(MemoryExpertSource::Create(catalog, experts).ok());
  experts.back().pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(MemoryExpertSource::Create(catalog, experts).status()));
  experts.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(MemoryExpertSource::Create(catalog, experts).status()));
}

}  // namespace
}  // namespace odmoe
