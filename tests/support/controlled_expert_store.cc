#include "tests/support/controlled_expert_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/core/io/file.h"

namespace odmoe {

class ControlledExpertStore::Batch : public ExpertBatch {
 public:
  Batch(ControlledExpertStore& store, absl::Span<const ExpertId> ids)
      : store_(store), ids_(ids.begin(), ids.end()), waited_(ids.size(), !store.late) {
    if (store.last_first) std::fill(waited_.begin() + waited_.size() / 2, waited_.end(), true);
  }
  ~Batch() override {
    const absl::MutexLock lock(&store_.mutex_);
    --store_.open_batches_;
  }

  size_t size() const override { return ids_.size(); }
  bool Ready(size_t i) override { return waited_[i]; }
  bool AwaitReady(size_t i, absl::Time until) override {
    return waited_[i] || !store_.on_await || store_.on_await(ids_[i], until);
  }
  size_t hits() const override { return store_.late ? 0 : ids_.size(); }

  absl::StatusOr<ExpertView> Wait(size_t i) override {
    waited_[i] = true;
    if (store_.on_wait) {
      const absl::Status status = store_.on_wait(ids_[i]);
      if (!status.ok()) return status;
    }
    const ExpertCatalog& catalog = store_.registry_.catalog;
    return ExpertView{store_.bytes_[catalog.IndexOf(ids_[i])].data(),
                      &catalog.FindLayer(ids_[i].layer)->layout};
  }

 private:
  ControlledExpertStore& store_;
  const std::vector<ExpertId> ids_;
  std::vector<bool> waited_;
};

ControlledExpertStore::ControlledExpertStore(const std::string& model_directory) {
  absl::StatusOr<ExpertRegistry> registry = ReadExpertRegistry(model_directory);
  EXPECT_TRUE(registry.ok()) << registry.status();
  if (!registry.ok()) return;
  registry_ = *std::move(registry);
  for (int64_t i = 0; i < registry_.catalog.expert_count(); ++i) {
    const ExpertFile& file = registry_.files[i];
    const LayerExperts* layer = registry_.catalog.FindLayer(registry_.catalog.IdOf(i).layer);
    bytes_.emplace_back(layer->layout.bytes);
    auto opened = PosixFileSystem().OpenForRead(file.path);
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (opened.ok()) {
      EXPECT_TRUE((*opened)->ReadAt(file.data_offset, absl::MakeSpan(bytes_.back())).ok());
    }
  }
}

absl::StatusOr<std::unique_ptr<ExpertBatch>> ControlledExpertStore::Acquire(
    absl::Span<const ExpertId> ids, absl::Time) {
  if (on_acquire) {
    const absl::Status status = on_acquire(ids);
    if (!status.ok()) return status;
  }
  if (ids.size() > batch_limit) {
    return absl::ResourceExhaustedError(absl::StrCat(ids.size(), " experts in one batch"));
  }
  for (const ExpertId id : ids) {
    if (registry_.catalog.IndexOf(id) < 0) return absl::NotFoundError(ExpertName(id));
  }
  const absl::MutexLock lock(&mutex_);
  largest_batch_ = std::max(largest_batch_, ids.size());
  if (late) misses_ += ids.size();
  ++open_batches_;
  return std::make_unique<Batch>(*this, ids);
}

void ControlledExpertStore::Prefetch(absl::Span<const ExpertId> ids) {
  const absl::MutexLock lock(&mutex_);
  prefetched_.insert(prefetched_.end(), ids.begin(), ids.end());
}

absl::StatusOr<StoreStats> ControlledExpertStore::Stats() {
  const absl::MutexLock lock(&mutex_);
  StoreStats stats;
  stats.misses = misses_;
  stats.bytes_read = misses_ * registry_.catalog.max_expert_bytes();
  return stats;
}

std::vector<ExpertId> ControlledExpertStore::prefetched() const {
  const absl::MutexLock lock(&mutex_);
  return prefetched_;
}

size_t ControlledExpertStore::largest_batch() const {
  const absl::MutexLock lock(&mutex_);
  return largest_batch_;
}

int ControlledExpertStore::open_batches() const {
  const absl::MutexLock lock(&mutex_);
  return open_batches_;
}

}  // namespace odmoe
