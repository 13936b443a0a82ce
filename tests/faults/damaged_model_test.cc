// The files of a model that is being served are flipped, cut and replaced: an expert comes with the
// right bytes or not at all, and the others are served. ODMOE_FAULT_FLIPS sets how many flips.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "services/core/io/owned_fd.h"
#include "services/expert_storage/open_expert_store.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

int Flips() {
  int flips = 0;
  const char* text = std::getenv("ODMOE_FAULT_FLIPS");
  return text != nullptr && absl::SimpleAtoi(text, &flips) && flips > 0 ? flips : 1000;
}

// Changes a bit in place; the same again undoes it.
void FlipBit(const std::string& path, uint64_t bit) {
  const OwnedFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC));
  unsigned char byte = 0;
  ASSERT_EQ(pread(fd.get(), &byte, 1, static_cast<off_t>(bit / 8)), 1) << path;
  byte ^= static_cast<unsigned char>(1u << (bit % 8));
  ASSERT_EQ(pwrite(fd.get(), &byte, 1, static_cast<off_t>(bit / 8)), 1) << path;
}

class DamagedModelTest : public ::testing::TestWithParam<SourceKind> {
 protected:
  static constexpr int32_t kLayers = 2;
  static constexpr int32_t kExperts = 8;

  DamagedModelTest() {
    MemoryExpertSource::RandomOptions shape;
    shape.layers = kLayers;
    shape.experts_per_layer = kExperts;
    truth_ = WriteRandomExperts(directory_.path(), shape);
  }

  absl::StatusOr<std::unique_ptr<CachingExpertStore>> Open() {
    OpenStoreOptions options;
    options.model_directory = directory_.path();
    options.budget = ParseBudget("25%").value();
    options.source = GetParam();
    return OpenExpertStore(options);
  }

  ExpertId AnyExpert() {
    return {static_cast<int32_t>(random_() % kLayers), static_cast<int32_t>(random_() % kExperts)};
  }
  ExpertId AnyAbsentExpert(ExpertStore& store) {
    ExpertId id = AnyExpert();
    while (store.Resident(id)) id = AnyExpert();
    return id;
  }

  // OK: it came, with the right bytes.
  absl::Status Fetch(ExpertStore& store, ExpertId id) {
    const auto batch = store.Acquire({id}, absl::Now() + absl::Minutes(1));
    if (!batch.ok()) return batch.status();
    const auto view = (*batch)->Wait(0);
    if (!view.ok()) return view.status();
    const auto expected = truth_->Bytes(id);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), view->data)) << ExpertName(id);
    return absl::OkStatus();
  }

  std::string PathOf(ExpertId id) const { return ExpertPath(directory_.path(), id); }

  TemporaryDirectory directory_;
  std::unique_ptr<MemoryExpertSource> truth_;
  std::mt19937_64 random_{7};
};

TEST_P(DamagedModelTest, EveryFlippedBitIsFoundAndCostsItsExpertAlone) {
  const auto store = Open().value();
  for (int flip = 0; flip < Flips(); ++flip) {
    const ExpertId id = AnyAbsentExpert(*store);
    const uint64_t bytes = truth_->catalog().FindLayer(id.layer)->layout.bytes;
    const uint64_t bit = kExpertDataOffset * 8 + random_() % (bytes * 8);
    FlipBit(PathOf(id), bit);
    const absl::Status status = Fetch(*store, id);
    ASSERT_TRUE(absl::IsDataLoss(status)) << ExpertName(id) << " bit " << bit << ": " << status;
    const ExpertId other = AnyExpert();
    if (other != id) ASSERT_TRUE(Fetch(*store, other).ok()) << ExpertName(other);
    FlipBit(PathOf(id), bit);
    ASSERT_TRUE(Fetch(*store, id).ok()) << ExpertName(id) << " stays lost";
  }
  EXPECT_EQ(store->Stats()->pinned_experts, 0u);
}

TEST_P(DamagedModelTest, ARegistryWithAFlippedBitNeverLeadsToWrongBytes) {
  const std::string path = directory_ / "experts/registry.json";
  const uint64_t bits = std::filesystem::file_size(path) * 8;
  int opened = 0;
  int lost = 0;
  for (int flip = 0; flip < Flips() / 5; ++flip) {
    const uint64_t bit = random_() % bits;
    FlipBit(path, bit);
    auto store = Open();
    FlipBit(path, bit);
    if (!store.ok()) continue;
    ++opened;
    const ExpertCatalog& catalog = (*store)->catalog();
    for (const LayerExperts& layer : catalog.layers()) {
      const LayerExperts* truth = truth_->catalog().FindLayer(layer.layer);
      if (truth == nullptr || !(layer.layout == truth->layout)) continue;  // named otherwise
      for (int32_t expert = 0; expert < std::min(layer.expert_count, kExperts); ++expert) {
        lost += Fetch(**store, {layer.layer, expert}).ok() ? 0 : 1;
      }
    }
  }
  // Most flips break the JSON or its rules; the rest cost an expert each, or none.
  EXPECT_LE(lost, opened * 2);
}

TEST_P(DamagedModelTest, AFileCutOrReplacedUnderTheServiceCostsItsExpertAlone) {
  const auto store = Open().value();
  for (int round = 0; round < 8; ++round) {
    const ExpertId id = AnyAbsentExpert(*store);
    const ExpertId other = {id.layer, (id.expert + 1) % kExperts};
    const std::string path = PathOf(id);
    const std::string kept = directory_ / "kept";
    std::filesystem::copy_file(path, kept);
    if (round % 4 == 0) {  // cut
      std::filesystem::resize_file(path, random_() % std::filesystem::file_size(path));
    } else if (round % 4 == 1) {  // another expert's
      std::filesystem::copy_file(PathOf(other), directory_ / "new");
      std::filesystem::rename(directory_ / "new", path);
    } else if (round % 4 == 2) {  // gone
      std::filesystem::remove(path);
    } else {  // something that is no file
      std::filesystem::remove(path);
      std::filesystem::create_directory(path);
    }
    // A source that keeps its files open still has the one that was there.
    const absl::Status status = Fetch(*store, id);
    EXPECT_TRUE(absl::IsDataLoss(status) || (status.ok() && round % 4 != 0)) << status;
    EXPECT_TRUE(Fetch(*store, other).ok());
    if (std::filesystem::is_directory(path)) std::filesystem::remove(path);
    std::filesystem::rename(kept, path);
    EXPECT_TRUE(Fetch(*store, id).ok()) << ExpertName(id) << " stays lost";
  }
}

INSTANTIATE_TEST_SUITE_P(Sources, DamagedModelTest,
                         ::testing::Values(SourceKind::kDirect, SourceKind::kMapped),
                         [](const auto& info) {
                           return info.param == SourceKind::kDirect ? "direct" : "mapped";
                         });

}  // namespace
}  // namespace odmoe
