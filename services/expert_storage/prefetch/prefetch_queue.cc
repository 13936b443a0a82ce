#include "services/expert_storage/prefetch/prefetch_queue.h"

namespace odmoe {

bool PrefetchQueue::Push(const PrefetchWish& wish) {
  const bool full = wishes_.size() >= capacity_;
  if (full) wishes_.pop_front();
  wishes_.push_back(wish);
  return !full;
}

std::optional<PrefetchWish> PrefetchQueue::Pop() {
  if (wishes_.empty()) return std::nullopt;
  const PrefetchWish wish = wishes_.front();
  wishes_.pop_front();
  return wish;
}

size_t PrefetchQueue::Cancel(uint64_t client) {
  return std::erase_if(wishes_, [client](const PrefetchWish& w) { return w.client == client; });
}

}  // namespace odmoe
