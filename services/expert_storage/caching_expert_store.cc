#include "services/expert_storage/caching_expert_store.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/experts/residency_protocol.h"

namespace odmoe {
namespace {

constexpr size_t kHashThreads = 2;
// Prefetched experts whose outcome is known when prefetching is judged: enough that one layer's
// luck does not decide.
constexpr uint64_t kJudgedExperts = 64;
// Wishes that may be queued: twice the slots, between these.
constexpr size_t kLeastWishes = 64;
constexpr size_t kMostWishes = 4096;

// A layer's demand is read in one turn of its tenant.
uint64_t TurnBytes(const ExpertCatalog& catalog, uint64_t demand) {
  return std::max<uint64_t>(1, demand) * catalog.max_expert_bytes();
}

// The whole budget, checked before the first page is touched.
absl::StatusOr<std::unique_ptr<Arena>> PopulatedArena(uint64_t slot_bytes, uint64_t slots,
                                                      const CachingExpertStore::Options& options,
                                                      uint64_t expert_count) {
  const uint64_t bytes = slots * slot_bytes;
  ODMOE_RETURN_IF_ERROR(CheckMemoryLeft("an expert budget", bytes));
  Arena::Options arena_options;
  ODMOE_ASSIGN_OR_RETURN(arena_options.shape, MakeArenaShape(slot_bytes, expert_count, slots,
                                                             options.segment_slots));
  arena_options.shareable = options.shareable;
  arena_options.huge_pages = options.huge_pages;
  arena_options.lock_memory = options.lock_memory;
  const std::vector<Arena::Segment> segments =
      PlanResize(arena_options.shape, {}, slots).add;
  ODMOE_ASSIGN_OR_RETURN(auto arena, Arena::Create(arena_options,
                                                   static_cast<uint32_t>(segments.size())));
  for (const Arena::Segment& segment : segments) {
    ODMOE_RETURN_IF_ERROR(arena->Add(segment.number, segment.slots));
    if (options.populated) options.populated(arena->bytes(), bytes);
  }
  if (options.huge_pages != HugePages::kAlways) return arena;
  const uint64_t granted = arena->MeasureGrants().huge_page_bytes;
  uint64_t possible = 0;  // a segment's end may be a part of one
  for (const Arena::Segment& segment : segments) {
    possible +=
        segment.slots * slot_bytes / ArenaShape::kHugePageBytes * ArenaShape::kHugePageBytes;
  }
  if (possible > 0 && granted >= possible) return arena;
  return absl::FailedPreconditionError(
      absl::StrCat("huge pages always, but of ", FormatBytes(bytes), " the kernel maps ",
                   FormatBytes(granted), " by them, of ", FormatBytes(possible),
                   " that could be; allow them (echo advise > /sys/kernel/mm/transparent_hugepage/",
                   options.shareable ? "shmem_enabled" : "enabled", "), or use auto"));
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
  ODMOE_ASSIGN_OR_RETURN(auto arena, PopulatedArena(slot_bytes, slot_count, options,
                                                    static_cast<uint64_t>(catalog.expert_count())));
  ResidencyShape shape;
  shape.epoch = absl::GetCurrentTimeNanos();
  shape.expert_count = static_cast<uint64_t>(catalog.expert_count());
  shape.slot_count = arena->shape().slot_limit();
  shape.slot_bytes = slot_bytes;
  shape.segment_slots = arena->shape().segment_slots;
  SharedRegion::Options table_options;
  table_options.name = "odmoe-residency-table";
  table_options.bytes = ResidencyTable::BytesFor(shape.expert_count);
  table_options.shareable = options.shareable;
  ODMOE_ASSIGN_OR_RETURN(auto table_region, SharedRegion::Create(table_options));
  const auto table = ResidencyTableWriter::Format(table_region->bytes(), shape);
  auto store = absl::WrapUnique(new CachingExpertStore(
      std::move(source), std::move(arena), std::move(table_region), table, std::move(options)));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<uint64_t> quotas,
                         store->QuotaSlots(store->budget_bytes()));
  ODMOE_RETURN_IF_ERROR(store->AddOwnClients(quotas));
  return store;
}

CachingExpertStore::CachingExpertStore(std::unique_ptr<ExpertSource> source,
                                       std::unique_ptr<Arena> arena,
                                       std::unique_ptr<SharedRegion> table_region,
                                       ResidencyTableWriter table, Options options)
    : epoch_(table.shape().epoch),
      policy_(options.policy),
      prefetch_enabled_(options.prefetch),
      shareable_(options.shareable),
      demand_(options.demand),
      client_patience_(options.client_patience),
      budget_bytes_(options.budget_bytes),
      source_(std::move(source)),
      arena_(std::move(arena)),
      table_region_(std::move(table_region)),
      table_(table),
      tenants_(std::move(options.tenants)),
      disk_(options.shared_disks == nullptr
                ? nullptr
                : options.shared_disks->Join(std::move(options.disks), tenants_.disk_shares())),
      recorder_(source_->catalog(), tenants_.size()),
      working_set_(table, MakeEvictionPolicy(options.policy, PolicyLayers::Of(source_->catalog(),
                                                                            options.demand))),
      scheduler_(tenants_.disk_shares(), TurnBytes(source_->catalog(), options.demand)),
      under_way_({source_->desired_bytes_under_way(), /*max_stalled=*/1, options.stalled_after}),
      judge_(kJudgedExperts * source_->catalog().max_expert_bytes()),
      prefetches_(kLeastWishes),
      pool_(std::make_unique<ThreadPool>(kHashThreads)) {
  layer_of_.reserve(catalog().expert_count());
  for (size_t layer = 0; layer < catalog().layers().size(); ++layer) {
    layer_of_.insert(layer_of_.end(), catalog().layers()[layer].expert_count,
                     static_cast<int32_t>(layer));
  }
  {
    absl::MutexLock lock(&mutex_);
    working_set_.set_recorder(&recorder_);
  }
  if (options.shadow_policies) {
    absl::MutexLock lock(&mutex_);
    working_set_.Shadow(std::make_unique<ShadowPolicies>(
        PolicyLayers::Of(catalog(), options.demand), options.policy, arena_->slot_count()));
  }
  watch_ = std::thread([this] { Watch(); });
}

CachingExpertStore::~CachingExpertStore() {
  table_.Close();
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    look_now_.Signal();
    under_way_.CancelAll();
    if (disk_ != nullptr) disk_->SetDemanding(0);
  }
  watch_.join();
  {
    absl::MutexLock lock(&mutex_);
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return under_way_.count() == 0;
    };
    mutex_.Await(absl::Condition(&idle));
  }
  // No read is under way and none starts, but the last Finish may still be delivering: on the pool
  // or on a thread of the source, both of which their destructors wait for.
  pool_.reset();
  source_.reset();
}

absl::StatusOr<std::vector<uint64_t>> CachingExpertStore::QuotaSlots(uint64_t budget_bytes) const {
  const uint64_t slot_bytes = arena_->shape().slot_bytes;
  const uint64_t least = minimum_budget_bytes() / slot_bytes;
  std::vector<uint64_t> quotas(tenants_.size(), WorkingSet::kNoQuota);
  for (int32_t tenant = 0; tenant < static_cast<int32_t>(tenants_.size()); ++tenant) {
    if (!tenants_[tenant].cache.has_value()) continue;
    const uint64_t bytes = tenants_.QuotaBytes(tenant, budget_bytes);
    quotas[tenant] = bytes / slot_bytes;
    if (quotas[tenant] < least) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "tenant '", tenants_[tenant].name, "' may take ", FormatBytes(bytes), " of ",
          FormatBytes(budget_bytes), ", which holds ", quotas[tenant],
          " experts; one layer demands ", least, " (", FormatBytes(least * slot_bytes), ")"));
    }
  }
  return quotas;
}

void CachingExpertStore::FollowSlots() {
  const uint64_t slots = working_set_.slots().in_circulation();
  under_way_.set_max_stalled(QuarterOf(slots));
  counters_.prefetch_dropped +=
      prefetches_.SetCapacity(std::clamp<size_t>(2 * slots, kLeastWishes, kMostWishes));
  for (const auto& client : clients_.all()) SetSlotLimit(*client);
}

void CachingExpertStore::SetQuotas(const std::vector<uint64_t>& slots) {
  for (size_t tenant = 0; tenant < slots.size(); ++tenant) {
    working_set_.SetQuota(static_cast<int32_t>(tenant), slots[tenant]);
  }
}

absl::Status CachingExpertStore::AddOwnClients(const std::vector<uint64_t>& quotas) {
  absl::MutexLock lock(&mutex_);
  SetQuotas(quotas);
  ODMOE_ASSIGN_OR_RETURN(local_client_, MakeClient("this process", kDefaultTenant));
  ODMOE_ASSIGN_OR_RETURN(stream_client_, MakeClient("streams", kDefaultTenant));
  stream_client_->kind = StoreClient::Kind::kStreams;
  ODMOE_ASSIGN_OR_RETURN(execute_client_, MakeClient("execute", kDefaultTenant));
  execute_client_->kind = StoreClient::Kind::kExecute;
  const auto view_of = [this](const StoreClient& client) {
    return std::make_unique<ArenaView>(ArenaView{&catalog(), arena_->base(), arena_->shape(),
                                                 nullptr, table_, client.page});
  };
  local_view_ = view_of(*local_client_);
  execute_view_ = view_of(*execute_client_);
  grants_ = arena_->MeasureGrants();
  segments_ = arena_->segments();
  for (const Arena::Segment& segment : segments_) {
    source_->OfferMemory(SegmentBytes(segment));
    Circulate(segment);
  }
  SetMaxBatch(working_set_.slots().in_circulation());
  FollowSlots();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ExpertBatch>> CachingExpertStore::Acquire(
    absl::Span<const ExpertId> ids, absl::Time deadline) {
  return AcquireBy(local_client_, *local_view_, ids, max_batch(), deadline);
}

size_t CachingExpertStore::max_execute_batch() const {
  // max_batch() is half of the slots, or more where the budget is small; the budget may be for more
  // experts than there are.
  const size_t slots = std::min<uint64_t>(budget_bytes() / arena_->shape().slot_bytes,
                                          2 * max_batch());
  return std::max<size_t>(1, slots / 4 / kExecuteCallers);
}

absl::StatusOr<std::unique_ptr<ExpertBatch>> CachingExpertStore::AcquireToExecute(
    absl::Span<const ExpertId> ids, absl::Time deadline) {
  return AcquireBy(execute_client_, *execute_view_, ids, max_execute_batch(), deadline);
}

absl::StatusOr<std::unique_ptr<ExpertBatch>> CachingExpertStore::AcquireBy(
    const std::shared_ptr<StoreClient>& client, const ArenaView& view,
    absl::Span<const ExpertId> ids, size_t max_batch, absl::Time deadline) {
  ODMOE_ASSIGN_OR_RETURN(auto batch,
                         PinnedBatch::PinResident(view, *this, ids, deadline, max_batch));
  if (batch->board() != nullptr) {
    Demand demand;
    demand.client = client;
    demand.experts = batch->missing();
    demand.deadline = deadline;
    demand.keeps_deadline = true;
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
  const uint64_t found_by_source = source_->Stats().checksum_failures;  // it has a lock of its own
  StoreStats stats;
  std::vector<PinPage> pages;
  std::vector<std::shared_ptr<StoreClient>> clients;  // whose pages they are
  {
    absl::MutexLock lock(&mutex_);
    TakeAllAccesses();
    FillStats(stats);
    pages.assign(clients_.pages().begin(), clients_.pages().end());
    clients.assign(clients_.all().begin(), clients_.all().end());
  }
  stats.checksum_failures += found_by_source;
  for (uint32_t slot = 0; slot < arena_->shape().slot_limit(); ++slot) {
    stats.pinned_experts += AnyPins(pages, slot) ? 1 : 0;
  }
  return stats;
}

void CachingExpertStore::FillStats(StoreStats& stats) const {
  stats = counters_;
  stats.budget_bytes = budget_bytes_;
  stats.slot_bytes = arena_->shape().slot_bytes;
  stats.slot_count = working_set_.slots().in_circulation();
  stats.huge_page_bytes = grants_.huge_page_bytes;
  stats.locked_bytes = grants_.locked_bytes;
  stats.resident_experts = working_set_.resident();
  stats.resident_bytes = stats.resident_experts * stats.slot_bytes;
  for (const auto& client : clients_.all()) {
    stats.clients += client->open && client->kind == StoreClient::Kind::kSession ? 1 : 0;
  }
  const UseCounters use = clients_.UseOfAll();
  stats.hits = use.hits;
  stats.stall_ns = use.stall_ns;
  const WorkingSet::Counters& counters = working_set_.counters();
  stats.evictions = counters.evictions;
  stats.prefetch_useful += counters.prefetch_useful;
  stats.prefetch_wasted = counters.prefetch_wasted;
}

absl::Status CachingExpertStore::Overdue(int64_t expert) const {
  absl::MutexLock lock(&mutex_);
  const auto load = loads_.find(expert);
  return OverdueStatus(expert, load == loads_.end() ? nullptr : load->second.get());
}

void CachingExpertStore::BatchReleased(const MissBoard* board, bool unanswered) {
  if (unanswered) Withdraw(board);
  // Relaxed: who starves just now looks again a millisecond later anyhow.
  if (anyone_starved_.load(std::memory_order_relaxed)) {
    absl::MutexLock lock(&mutex_);
    slot_may_be_free_ = true;
    look_now_.Signal();
  }
}

}  // namespace odmoe
