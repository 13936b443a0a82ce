#include "services/expert_storage/policy/visit_tracker.h"

namespace odmoe {

bool VisitTracker::Begins(uint64_t client, int64_t expert) {
  Visit& visit = clients_[client];
  const int32_t layer = layers_->LayerOf(expert);
  const bool begins = visit.layer != layer || seen_in_[expert] == visit.number;
  if (begins) visit = {layer, ++last_number_};
  seen_in_[expert] = visit.number;
  return begins;
}

void VisitTracker::ClientGone(uint64_t client) { clients_.erase(client); }

}  // namespace odmoe
