#include "services/expert_storage/sources/hash_book.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "services/core/experts/expert_id.h"
#include "xxhash.h"

namespace odmoe {
namespace {

// Less than this is not worth a thread's waking.
constexpr uint64_t kLeastRun = 1 << 20;

}  // namespace

HashBook::HashBook(const ExpertCatalog& catalog) : catalog_(catalog) {
  for (const LayerExperts& layer : catalog.layers()) {
    if (!layer.xxh3.empty()) continue;
    seen_ = std::vector<std::atomic<uint64_t>>(static_cast<size_t>(catalog.expert_count()));
    return;
  }
}

absl::Status HashBook::Check(int64_t expert, uint64_t hash) {
  const ExpertId id = catalog_.IdOf(expert);
  const LayerExperts& layer = *catalog_.FindLayer(id.layer);
  const bool known = !layer.xxh3.empty();
  uint64_t expected = hash;
  if (known) {
    expected = layer.xxh3[id.expert];
  } else {
    // A hash of 0 is never remembered, which costs one expert in 2^64 its check.
    uint64_t seen = 0;
    if (!seen_[expert].compare_exchange_strong(seen, hash, std::memory_order_relaxed)) {
      expected = seen;
    }
  }
  if (hash == expected) return absl::OkStatus();
  failures_.fetch_add(1, std::memory_order_relaxed);
  return absl::DataLossError(absl::StrCat(
      ExpertName(id), " is corrupt: XXH3 of its ", layer.layout.bytes, " bytes is ",
      absl::Hex(hash, absl::kZeroPad16),
      known ? ", the registry says " : ", at the first read it was ",
      absl::Hex(expected, absl::kZeroPad16)));
}

// The library's own type, which it does not define for its users.
struct RunningHash::State {
  static XXH3_state_t* Of(State* state) { return reinterpret_cast<XXH3_state_t*>(state); }
};

void RunningHash::FreeState::operator()(State* state) const { XXH3_freeState(State::Of(state)); }

std::shared_ptr<RunningHash> RunningHash::Create(absl::Span<const std::byte> bytes,
                                                 ThreadPool& pool) {
  return absl::WrapUnique(new RunningHash(bytes, pool));
}

RunningHash::RunningHash(absl::Span<const std::byte> bytes, ThreadPool& pool)
    : bytes_(bytes), pool_(pool), state_(reinterpret_cast<State*>(XXH3_createState())) {
  XXH3_64bits_reset(State::Of(state_.get()));
}

void RunningHash::Landed(uint64_t begin, uint64_t end) {
  absl::MutexLock lock(&mutex_);
  Join(begin, end);
  if (working_ || landed_ - hashed_ < kLeastRun) return;
  working_ = true;
  pool_.Schedule([self = shared_from_this()] { self->Work(); });
}

void RunningHash::Join(uint64_t begin, uint64_t end) {
  if (begin != landed_) {
    pieces_.emplace(begin, end);
    return;
  }
  landed_ = end;
  while (!pieces_.empty() && pieces_.begin()->first == landed_) {
    landed_ = pieces_.begin()->second;
    pieces_.erase(pieces_.begin());
  }
}

void RunningHash::Finish(std::function<void(uint64_t)> done) {
  {
    absl::MutexLock lock(&mutex_);
    on_hash_ = std::move(done);
    if (working_) return;
    working_ = true;
    if (bytes_.size() - hashed_ >= kLeastRun) {
      pool_.Schedule([self = shared_from_this()] { self->Work(); });
      return;
    }
  }
  Work();
}

void RunningHash::Abandon(std::function<void()> done) {
  {
    absl::MutexLock lock(&mutex_);
    if (working_) {
      on_abandon_ = std::move(done);
      return;
    }
  }
  done();
}

void RunningHash::Work() {
  std::function<void(uint64_t)> on_hash;
  std::function<void()> on_abandon;
  {
    absl::MutexLock lock(&mutex_);
    while (hashed_ < landed_ && on_abandon_ == nullptr) {
      const uint64_t from = hashed_, to = landed_;
      mutex_.Unlock();
      XXH3_64bits_update(State::Of(state_.get()), bytes_.data() + from, to - from);
      mutex_.Lock();
      hashed_ = to;
    }
    working_ = false;
    on_abandon = std::exchange(on_abandon_, nullptr);
    if (hashed_ == bytes_.size()) on_hash = std::exchange(on_hash_, nullptr);
  }
  if (on_abandon) on_abandon();
  if (on_hash) on_hash(XXH3_64bits_digest(State::Of(state_.get())));
}

}  // namespace odmoe
