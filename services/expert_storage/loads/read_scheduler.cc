#include "services/expert_storage/loads/read_scheduler.h"

#include <algorithm>

namespace odmoe {

ReadScheduler::ReadScheduler(std::vector<double> disk_shares, uint64_t turn_bytes)
    : turn_bytes_(turn_bytes), queues_(disk_shares.size()) {
  for (size_t tenant = 0; tenant < queues_.size(); ++tenant) {
    queues_[tenant].share = disk_shares[tenant];
  }
}

void ReadScheduler::Push(int32_t tenant, const Entry& entry) {
  Queue& queue = queues_[tenant];
  if (queue.entries.empty()) queue.virtual_time = std::max(queue.virtual_time, virtual_now_);
  queue.entries.push_back(entry);
  queue.bytes += entry.bytes;
  ++queued_;
}

bool ReadScheduler::TurnGoesOn() const {
  if (!turn_.has_value()) return false;
  const Queue& queue = queues_[turn_->tenant];
  return !queue.blocked && !queue.entries.empty() &&
         queue.entries.front().request == turn_->request &&
         turn_->bytes + queue.entries.front().bytes <= turn_bytes_;
}

std::optional<ReadScheduler::Pick> ReadScheduler::Next() const {
  if (TurnGoesOn()) return Pick{turn_->tenant, queues_[turn_->tenant].entries.front()};
  const Queue* next = nullptr;
  for (const Queue& queue : queues_) {
    if (queue.blocked || queue.entries.empty()) continue;
    if (next == nullptr || queue.virtual_time < next->virtual_time) next = &queue;
  }
  if (next == nullptr) return std::nullopt;
  return Pick{static_cast<int32_t>(next - queues_.data()), next->entries.front()};
}

void ReadScheduler::Take(const Pick& pick) {
  Queue& queue = queues_[pick.tenant];
  if (TurnGoesOn()) {
    turn_->bytes += pick.entry.bytes;
  } else {
    turn_ = Turn{pick.tenant, pick.entry.request, pick.entry.bytes};
    virtual_now_ = std::max(virtual_now_, queue.virtual_time);
  }
  queue.entries.pop_front();
  queue.bytes -= pick.entry.bytes;
  --queued_;
}

void ReadScheduler::Charge(int32_t tenant, uint64_t bytes) {
  Queue& queue = queues_[tenant];
  queue.charged += bytes;
  queue.virtual_time += static_cast<double>(bytes) / queue.share;
}

void ReadScheduler::Drop(int32_t tenant, int64_t expert) {
  Queue& queue = queues_[tenant];
  const auto found = std::find_if(queue.entries.begin(), queue.entries.end(),
                                  [expert](const Entry& entry) { return entry.expert == expert; });
  if (found == queue.entries.end()) return;
  queue.bytes -= found->bytes;
  queue.entries.erase(found);
  --queued_;
}

uint64_t ReadScheduler::waiting() const {
  uint64_t tenants = 0;
  for (size_t tenant = 0; tenant < queues_.size(); ++tenant) {
    const bool waits = !queues_[tenant].entries.empty() && !queues_[tenant].blocked;
    tenants |= uint64_t{waits} << tenant;
  }
  return tenants;
}

void ReadScheduler::Block(int32_t tenant) {
  blocked_ += queues_[tenant].blocked ? 0 : 1;
  queues_[tenant].blocked = true;
}

void ReadScheduler::UnblockAll() {
  if (blocked_ == 0) return;
  for (Queue& queue : queues_) queue.blocked = false;
  blocked_ = 0;
}

}  // namespace odmoe
