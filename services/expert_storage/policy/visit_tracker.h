// Where a client's demands pass from one layer to the next.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/expert_storage/policy/policy_layers.h"

namespace odmoe {

// A visit is what a client demands of one layer at one step: a token's experts, or those of all
// tokens of a batch. It ends when the client demands an expert of another layer, or one it has
// demanded in this visit already. O(1) a call, 4 bytes an expert. Not thread-safe.
class VisitTracker {
 public:
  explicit VisitTracker(std::shared_ptr<const PolicyLayers> layers)
      : layers_(std::move(layers)), seen_in_(layers_->expert_count(), 0) {}

  // True: the demand begins a visit.
  bool Begins(uint64_t client, int64_t expert);
  void ClientGone(uint64_t client);

  uint64_t bookkeeping_bytes() const {
    return seen_in_.capacity() * sizeof(seen_in_[0]) +
           clients_.capacity() * (sizeof(uint64_t) + sizeof(Visit));
  }

 private:
  struct Visit {
    int32_t layer = -1;
    uint32_t number = 0;  // among all, modulo 2^32
  };

  std::shared_ptr<const PolicyLayers> layers_;
  std::vector<uint32_t> seen_in_;  // by expert: the last visit that demanded it
  absl::flat_hash_map<uint64_t, Visit> clients_;
  uint32_t last_number_ = 0;
};

}  // namespace odmoe
