#include "services/expert_storage/replay/replay.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/experts/budget.h"
#include "services/core/experts/pin_page.h"
#include "services/core/experts/residency_protocol.h"
#include "services/expert_storage/arena/arena.h"
#include "services/expert_storage/policy/belady_policy.h"
#include "services/expert_storage/working_set.h"

namespace odmoe {
namespace {

constexpr absl::string_view kBelady = "belady";
constexpr int64_t kEpoch = 1;
constexpr uint64_t kClient = 1;

// Zeroed memory as shared regions have it.
class ReplayMemory {
 public:
  explicit ReplayMemory(uint64_t bytes)
      : lines_((bytes + sizeof(Line) - 1) / sizeof(Line)), bytes_(bytes) {}
  absl::Span<std::byte> span() { return {lines_.data()->bytes, bytes_}; }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  std::vector<Line> lines_;
  uint64_t bytes_;
};

// One client, one tenant, one cache.
class ReplayedCache {
 public:
  ReplayedCache(std::unique_ptr<EvictionPolicy> policy, int64_t experts, int64_t slots)
      : table_memory_(ResidencyTable::BytesFor(static_cast<uint64_t>(experts))),
        page_memory_(PinPage::BytesFor(static_cast<uint64_t>(slots))),
        table_(ResidencyTableWriter::Format(
            table_memory_.span(), {kEpoch, static_cast<uint64_t>(experts),
                                   static_cast<uint64_t>(slots), /*slot_bytes=*/4096})),
        pages_{PinPage::Format(page_memory_.span(), kEpoch, static_cast<uint64_t>(slots))},
        set_(table_, std::move(policy)) {
    set_.AddSlots(0, static_cast<uint32_t>(slots));
  }

  // A forward pass demands these experts of one layer. INTERNAL: the working set gave no slot
  // though none was pinned.
  absl::Status Visit(absl::Span<const int64_t> experts) {
    missing_.clear();
    for (const int64_t expert : experts) {
      if (const auto slot = TryPin(table_, pages_[0], expert)) {
        pinned_.push_back(*slot);
        set_.Demanded(kClient, kDefaultTenant, expert);
      } else {
        missing_.push_back(expert);
      }
    }
    hits_ += static_cast<int64_t>(experts.size() - missing_.size());
    for (const int64_t expert : missing_) set_.Demanded(kClient, kDefaultTenant, expert);
    for (const int64_t expert : missing_) ODMOE_RETURN_IF_ERROR(Load(expert));
    Unpin();
    return absl::OkStatus();
  }

  int64_t hits() const { return hits_; }
  int64_t evictions() const { return static_cast<int64_t>(set_.counters().evictions); }

 private:
  absl::Status Load(int64_t expert) {
    auto slot = set_.TakeSlot(WorkingSet::Purpose::kDemand, kDefaultTenant, pages_);
    if (!slot) {
      // The layer is larger than the cache: what came so far is computed and let go.
      Unpin();
      slot = set_.TakeSlot(WorkingSet::Purpose::kDemand, kDefaultTenant, pages_);
    }
    if (!slot) return absl::InternalError("no slot, though nothing is pinned");
    set_.Publish(expert, *slot, kDefaultTenant, Arrival::kDemanded);
    pages_[0].Pin(*slot);
    pinned_.push_back(*slot);
    return absl::OkStatus();
  }
  void Unpin() {
    for (const uint32_t slot : pinned_) pages_[0].Unpin(slot);
    pinned_.clear();
  }

  ReplayMemory table_memory_;
  ReplayMemory page_memory_;
  ResidencyTableWriter table_;
  std::vector<PinPage> pages_;
  WorkingSet set_;
  std::vector<uint32_t> pinned_;
  std::vector<int64_t> missing_;
  int64_t hits_ = 0;
};

// The demands in their order: each visit's experts, by catalog index.
struct Demands {
  std::vector<int64_t> experts;
  std::vector<size_t> ends;  // of each visit, in `experts`
  int64_t tokens = 0;
};

Demands DecodeDemands(const RouteTrace& trace) {
  Demands demands;
  for (const RouteTrace::Token& token : trace.tokens) {
    if (token.prefill) continue;
    ++demands.tokens;
    for (size_t layer = 0; layer < token.experts.size(); ++layer) {
      if (token.experts[layer].empty()) continue;
      for (const int32_t expert : token.experts[layer]) {
        demands.experts.push_back(static_cast<int64_t>(layer) * trace.expert_count + expert);
      }
      demands.ends.push_back(demands.experts.size());
    }
  }
  return demands;
}

std::unique_ptr<EvictionPolicy> MakePolicy(const ReplayPolicy& policy, const RouteTrace& trace,
                                           const Demands& demands) {
  const std::vector<int32_t> counts(trace.layer_count, trace.expert_count);
  auto layers = std::make_shared<PolicyLayers>(counts, trace.top_k);
  if (policy.kind.has_value()) return MakeEvictionPolicy(*policy.kind, std::move(layers));
  return std::make_unique<BeladyPolicy>(std::move(layers), demands.experts);
}

}  // namespace

std::string ReplayPolicy::name() const {
  return std::string(kind.has_value() ? PolicyKindName(*kind) : kBelady);
}

absl::StatusOr<ReplayPolicy> ParseReplayPolicy(absl::string_view name) {
  if (name == kBelady) return ReplayPolicy{};
  auto kind = ParseEvictionPolicy(name);
  if (kind.ok()) return ReplayPolicy{*kind};
  return absl::InvalidArgumentError(
      absl::StrCat(kind.status().message(), ", and for replays ", kBelady));
}

absl::StatusOr<ReplayBudget> ParseReplayBudget(absl::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
  ReplayBudget budget;
  budget.text = std::string(trimmed);
  if (!trimmed.empty() && (trimmed.back() == 'x' || trimmed.back() == 'X')) {
    if (absl::SimpleAtod(trimmed.substr(0, trimmed.size() - 1), &budget.amount) &&
        budget.amount > 0.0 && std::isfinite(budget.amount)) {
      return budget;
    }
  } else if (const auto parsed = ParseBudget(trimmed);
             parsed.ok() && parsed->kind != Budget::Kind::kAuto) {
    const bool percent = parsed->kind == Budget::Kind::kPercent;
    budget.kind = percent ? ReplayBudget::Kind::kPercent : ReplayBudget::Kind::kBytes;
    budget.amount = parsed->percent;
    budget.bytes = parsed->bytes;
    return budget;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("not a budget: '", text, "'; write a multiple of one token's demand such as "
                   "1.5x, a share of all experts such as 25%, or a size such as 20GiB"));
}

absl::StatusOr<int64_t> ResolveReplayBudget(const ReplayBudget& budget, const RouteTrace& trace) {
  const int64_t experts = int64_t{trace.layer_count} * trace.expert_count;
  double slots = 0.0;
  switch (budget.kind) {
    case ReplayBudget::Kind::kDemand:
      slots = budget.amount * static_cast<double>(trace.demand());
      break;
    case ReplayBudget::Kind::kPercent:
      slots = budget.amount / 100.0 * static_cast<double>(experts);
      break;
    case ReplayBudget::Kind::kBytes:
      if (trace.expert_bytes == 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the trace does not say how large an expert is (expert_bytes), so a budget of ",
            budget.text, " holds nobody knows how many; give a multiple such as 1.5x"));
      }
      slots = static_cast<double>(budget.bytes / SlotBytes(trace.expert_bytes));
      break;
  }
  // What rounding takes off a product such as 0.7 * 10 is not a slot less.
  const int64_t whole =
      slots >= static_cast<double>(experts) ? experts : static_cast<int64_t>(slots + 1e-6);
  if (whole >= 1) return whole;
  return absl::InvalidArgumentError(
      absl::StrCat("a budget of ", budget.text, " holds no expert; one token demands ",
                   trace.demand(), " of ", experts));
}

absl::StatusOr<ReplayResult> Replay(const RouteTrace& trace, const ReplayPolicy& policy,
                                    int64_t slots) {
  const Demands demands = DecodeDemands(trace);
  if (demands.ends.empty()) {
    return absl::InvalidArgumentError("the trace has no decoded token to replay");
  }
  const int64_t experts = int64_t{trace.layer_count} * trace.expert_count;
  if (slots < 1) return absl::InvalidArgumentError("a replay needs a slot at least");
  slots = std::min(slots, experts);
  ReplayedCache cache(MakePolicy(policy, trace, demands), experts, slots);
  const absl::Time start = absl::Now();
  size_t begin = 0;
  for (const size_t end : demands.ends) {
    ODMOE_RETURN_IF_ERROR(
        cache.Visit(absl::MakeConstSpan(demands.experts).subspan(begin, end - begin)));
    begin = end;
  }
  ReplayResult result;
  result.seconds = absl::ToDoubleSeconds(absl::Now() - start);
  result.slots = slots;
  result.tokens = demands.tokens;
  result.accesses = static_cast<int64_t>(demands.experts.size());
  result.hits = cache.hits();
  result.evictions = cache.evictions();
  result.bytes_read =
      static_cast<uint64_t>(result.accesses - result.hits) * trace.expert_bytes;
  return result;
}

std::optional<double> ShareOfWay(const ReplayResult& result, const ReplayResult& lru,
                                 const ReplayResult& belady) {
  if (belady.hits <= lru.hits) return std::nullopt;
  return static_cast<double>(result.hits - lru.hits) /
         static_cast<double>(belady.hits - lru.hits);
}

}  // namespace odmoe
