#include "services/expert_storage/caching_expert_store.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/expert_storage/policy/lru_policy.h"

namespace odmoe {
namespace {

// Each takes a look at its pin page per eviction, and a page of memory.
constexpr size_t kMaxClients = 256;
constexpr size_t kHashThreads = 2;

// Half of the slots, so that two callers never wait for one another; all of them where every expert
// has a slot and nobody ever waits for one.
size_t MaxBatch(const ResidencyShape& shape, uint64_t demand) {
  if (shape.slot_count >= shape.expert_count) return shape.slot_count;
  const uint64_t least = std::min<uint64_t>(std::max<uint64_t>(1, demand), shape.slot_count);
  return std::max(least, shape.slot_count / 2);
}

size_t PrefetchCapacity(uint64_t slot_count) {
  return std::clamp<size_t>(2 * slot_count, 64, 4096);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CachingExpertStore>> CachingExpertStore::Create(
    std::unique_ptr<ExpertSource> source, Options options) {
  const ExpertCatalog& catalog = source->catalog();
  if (catalog.expert_count() == 0) {
    return absl::InvalidArgumentError("a model without routed experts needs no expert store");
  }
  const uint64_t slot_bytes = SlotBytes(catalog.max_expert_bytes());
  const uint64_t slot_count = std::min<uint64_t>(options.budget_bytes / slot_bytes,
                                                 static_cast<uint64_t>(catalog.expert_count()));
  if (slot_count == 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("expert budget of ", options.budget_bytes, " bytes (",
                     FormatBytes(options.budget_bytes), ") is below one expert's slot, ",
                     slot_bytes, " bytes (", FormatBytes(slot_bytes), ")"));
  }
  ODMOE_ASSIGN_OR_RETURN(auto arena, Arena::Create(slot_bytes, slot_count, options.shareable));
  ResidencyShape shape;
  shape.epoch = absl::GetCurrentTimeNanos();
  shape.expert_count = static_cast<uint64_t>(catalog.expert_count());
  shape.slot_count = slot_count;
  shape.slot_bytes = slot_bytes;
  SharedRegion::Options table_options;
  table_options.name = "odmoe-residency-table";
  table_options.bytes = ResidencyTable::BytesFor(shape.expert_count);
  table_options.shareable = options.shareable;
  ODMOE_ASSIGN_OR_RETURN(auto table_region, SharedRegion::Create(table_options));
  const auto table = ResidencyTableWriter::Format(table_region->bytes(), shape);
  if (options.policy == nullptr) {
    options.policy = std::make_unique<LruPolicy>(catalog.expert_count());
  }
  auto store = absl::WrapUnique(new CachingExpertStore(
      std::move(source), std::move(arena), std::move(table_region), table, std::move(options)));
  ODMOE_RETURN_IF_ERROR(store->AddLocalClient());
  return store;
}

CachingExpertStore::CachingExpertStore(std::unique_ptr<ExpertSource> source,
                                       std::unique_ptr<Arena> arena,
                                       std::unique_ptr<SharedRegion> table_region,
                                       ResidencyTableWriter table, Options options)
    : epoch_(table.shape().epoch),
      prefetch_enabled_(options.prefetch),
      shareable_(options.shareable),
      budget_bytes_(options.budget_bytes),
      max_batch_(MaxBatch(table.shape(), options.demand)),
      source_(std::move(source)),
      arena_(std::move(arena)),
      table_region_(std::move(table_region)),
      table_(table),
      working_set_(table, std::move(options.policy)),
      prefetches_(PrefetchCapacity(table.shape().slot_count)),
      pool_(std::make_unique<ThreadPool>(kHashThreads)) {
  layer_of_.reserve(catalog().expert_count());
  for (size_t layer = 0; layer < catalog().layers().size(); ++layer) {
    layer_of_.insert(layer_of_.end(), catalog().layers()[layer].expert_count,
                     static_cast<int32_t>(layer));
  }
  starved_watch_ = std::thread([this] { WatchStarved(); });
}

CachingExpertStore::~CachingExpertStore() {
  table_.Close();
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  starved_watch_.join();
  {
    absl::MutexLock lock(&mutex_);
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return demand_reads_ + prefetch_reads_ == 0;
    };
    mutex_.Await(absl::Condition(&idle));
  }
  // No read is under way and none starts, but the last Finish may still be delivering: on the pool
  // or on a thread of the source, both of which their destructors wait for.
  pool_.reset();
  source_.reset();
}

absl::Status CachingExpertStore::AddLocalClient() {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(local_client_, MakeClient("this process"));
  local_view_ = std::make_unique<ArenaView>(ArenaView{&catalog(), arena_->region().bytes().data(),
                                                      arena_->slot_bytes(), table_,
                                                      local_client_->page});
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ExpertBatch>> CachingExpertStore::Acquire(
    absl::Span<const ExpertId> ids, absl::Time deadline) {
  ODMOE_ASSIGN_OR_RETURN(auto batch, PinnedBatch::PinResident(*local_view_, *this, ids, deadline,
                                                              max_batch_));
  if (batch->board() != nullptr) {
    Demand demand;
    demand.client = local_client_;
    demand.experts = batch->missing();
    demand.deadline = deadline;
    demand.owner = batch->board().get();
    demand.deliver = [board = batch->board()](size_t position, absl::StatusOr<uint32_t> slot) {
      board->Deliver(position, std::move(slot));
    };
    Serve(std::move(demand));
  }
  return batch;
}

void CachingExpertStore::Prefetch(absl::Span<const ExpertId> ids) {
  std::vector<int64_t> experts;
  experts.reserve(ids.size());
  for (ExpertId id : ids) {
    const int64_t expert = catalog().IndexOf(id);
    if (expert >= 0) experts.push_back(expert);
  }
  PrefetchFor(local_client_, experts);
}

absl::StatusOr<StoreStats> CachingExpertStore::Stats() {
  absl::MutexLock lock(&mutex_);
  TakeAllAccesses();
  StoreStats stats = counters_;
  stats.budget_bytes = budget_bytes_;
  stats.slot_bytes = arena_->slot_bytes();
  stats.slot_count = arena_->slot_count();
  stats.resident_experts = working_set_.resident();
  stats.resident_bytes = stats.resident_experts * stats.slot_bytes;
  stats.pinned_experts = working_set_.CountPinned(pages_);
  for (const auto& client : clients_) {
    stats.clients += client->open && client != local_client_ ? 1 : 0;
    stats.hits += client->page.hits();
    stats.stall_ns += client->page.stall_ns();
  }
  const WorkingSet::Counters& counters = working_set_.counters();
  stats.evictions = counters.evictions;
  stats.prefetch_useful += counters.prefetch_useful;
  stats.prefetch_wasted = counters.prefetch_wasted;
  return stats;
}

absl::Status CachingExpertStore::Overdue(int64_t expert) const {
  const ExpertId id = catalog().IdOf(expert);
  absl::MutexLock lock(&mutex_);
  const auto load = loads_.find(expert);
  if (load != loads_.end() && !load->second->reading) return AllPinned(id);
  return absl::DeadlineExceededError(absl::StrCat(ExpertName(id), " has not arrived in time"));
}

absl::Status CachingExpertStore::AllPinned(ExpertId id) const {
  return absl::ResourceExhaustedError(absl::StrCat("no slot for ", ExpertName(id), ": all ",
                                                   arena_->slot_count(), " were pinned until the ",
                                                   "deadline"));
}

void CachingExpertStore::BatchReleased(const MissBoard* board, bool unanswered) {
  if (unanswered) Withdraw(board);
  // Relaxed: who starves just now looks again a millisecond later anyhow.
  if (anyone_starved_.load(std::memory_order_relaxed)) {
    absl::MutexLock lock(&mutex_);
    slot_may_be_free_ = true;
  }
}

absl::StatusOr<std::shared_ptr<StoreClient>> CachingExpertStore::AttachClient(std::string name) {
  absl::MutexLock lock(&mutex_);
  return MakeClient(std::move(name));
}

absl::StatusOr<std::shared_ptr<StoreClient>> CachingExpertStore::MakeClient(std::string name) {
  if (clients_.size() >= kMaxClients) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the store has ", clients_.size(), " clients, and serves no more"));
  }
  SharedRegion::Options options;
  options.name = "odmoe-pin-page";
  options.bytes = PinPage::BytesFor(arena_->slot_count());
  options.shareable = shareable_;
  options.clients_write = true;
  ODMOE_ASSIGN_OR_RETURN(auto region, SharedRegion::Create(options));
  const PinPage page = PinPage::Format(region->bytes(), epoch_, arena_->slot_count());
  auto client = std::make_shared<StoreClient>(next_client_++, std::move(name), std::move(region),
                                              page, catalog().layers().size());
  clients_.push_back(client);
  pages_.push_back(page);
  return client;
}

bool CachingExpertStore::BeginMapping(const std::shared_ptr<StoreClient>& client) {
  absl::MutexLock lock(&mutex_);
  client->mapped = client->open;
  return client->mapped;
}

void CachingExpertStore::EndMapping(const std::shared_ptr<StoreClient>& client) {
  absl::MutexLock lock(&mutex_);
  client->mapped = false;
  RetireIfGone(*client);
}

void CachingExpertStore::EndSession(const std::shared_ptr<StoreClient>& client) {
  absl::MutexLock lock(&mutex_);
  if (!client->open) return;
  client->open = false;
  RemoveWaiters([&](const Waiter& waiter) { return waiter.demand->client == client; });
  counters_.prefetch_dropped += prefetches_.Cancel(client->id);
  RetireIfGone(*client);
}

void CachingExpertStore::RetireIfGone(const StoreClient& client) {
  if (client.open || client.mapped) return;
  for (size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i].get() != &client) continue;
    TakeAccesses(*clients_[i]);
    working_set_.ClientGone(client.id);
    counters_.hits += client.page.hits();
    counters_.stall_ns += client.page.stall_ns();
    slot_may_be_free_ = true;
    pages_.erase(pages_.begin() + static_cast<ptrdiff_t>(i));
    clients_.erase(clients_.begin() + static_cast<ptrdiff_t>(i));  // may be the end of `client`
    return;
  }
}

void CachingExpertStore::NoteDemand(StoreClient& client, int64_t expert) {
  client.layer_clocks[layer_of_[expert]] = ++demand_clock_;
  working_set_.Demanded(client.id, kDefaultTenant, expert);
}

void CachingExpertStore::TakeAccesses(StoreClient& client) {
  accesses_.clear();
  client.page.TakeAccesses(table_.shape().expert_count, client.ring_position, accesses_);
  for (int64_t expert : accesses_) NoteDemand(client, expert);
}

void CachingExpertStore::TakeAllAccesses() {
  for (const auto& client : clients_) TakeAccesses(*client);
}

}  // namespace odmoe
