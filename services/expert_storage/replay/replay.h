// Replays routing through the cache, without any expert's bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/expert_storage/policy/make_policy.h"
#include "services/expert_storage/replay/route_trace.h"

namespace odmoe {

// A policy to replay: one that a store can have, or Belady's offline optimum.
struct ReplayPolicy {
  std::optional<PolicyKind> kind;  // none: Belady

  std::string name() const;
  friend bool operator==(const ReplayPolicy&, const ReplayPolicy&) = default;
};

// A policy's name or "belady". INVALID_ARGUMENT: anything else.
absl::StatusOr<ReplayPolicy> ParseReplayPolicy(absl::string_view name);

// How much of a model stays in memory, as given: "1.5x" of one token's demand, "25%" of all
// experts, or bytes ("20GiB").
struct ReplayBudget {
  enum class Kind { kDemand, kPercent, kBytes };
  Kind kind = Kind::kDemand;
  double amount = 1.0;  // kDemand: times; kPercent
  uint64_t bytes = 0;   // kBytes
  std::string text;     // as given
};

// INVALID_ARGUMENT: nothing of the kind, or not above 0.
absl::StatusOr<ReplayBudget> ParseReplayBudget(absl::string_view text);
// Experts that the budget holds, never more than there are. INVALID_ARGUMENT: none at all, or bytes
// for a trace that does not know how large its experts are.
absl::StatusOr<int64_t> ResolveReplayBudget(const ReplayBudget& budget, const RouteTrace& trace);

struct ReplayResult {
  int64_t slots = 0;    // experts the budget holds
  int64_t tokens = 0;   // replayed
  int64_t accesses = 0;
  int64_t hits = 0;
  int64_t evictions = 0;
  uint64_t bytes_read = 0;  // by misses; 0 where the trace does not say how large an expert is
  double seconds = 0.0;     // the replay took

  double hit_rate() const { return accesses > 0 ? double(hits) / double(accesses) : 0.0; }
};

// Replays the decoded tokens from an empty cache of `slots` experts, each layer's experts pinned
// together as a forward pass has them: the store's working set, residency table, pins and policy.
// What is read is there at once. A layer that demands more than there are slots is taken in
// portions.
// INVALID_ARGUMENT: no decoded token in the trace, or no slot.
absl::StatusOr<ReplayResult> Replay(const RouteTrace& trace, const ReplayPolicy& policy,
                                    int64_t slots);

// How far on the way from LRU's hits to Belady's: 1 is Belady. Nothing where there is no way.
std::optional<double> ShareOfWay(const ReplayResult& result, const ReplayResult& lru,
                                 const ReplayResult& belady);

}  // namespace odmoe
