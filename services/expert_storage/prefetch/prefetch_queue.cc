#include "services/expert_storage/prefetch/prefetch_queue.h"

#include <algorithm>

namespace odmoe {

PrefetchQueue::Wishes& PrefetchQueue::WishesOf(uint64_t client) {
  for (Wishes& wishes : clients_) {
    if (wishes.client == client) return wishes;
  }
  return clients_.emplace_back(Wishes{client, {}});
}

void PrefetchQueue::DropOldest() {
  const auto most = std::max_element(
      clients_.begin(), clients_.end(),
      [](const Wishes& a, const Wishes& b) { return a.queue.size() < b.queue.size(); });
  most->queue.pop_front();
  --size_;
  if (most->queue.empty()) Leave(static_cast<size_t>(most - clients_.begin()));
}

void PrefetchQueue::Leave(size_t index) {
  clients_.erase(clients_.begin() + static_cast<ptrdiff_t>(index));
  if (next_ > index) --next_;
}

size_t PrefetchQueue::SetCapacity(size_t capacity) {
  capacity_ = capacity;
  size_t dropped = 0;
  for (; size_ > capacity_; ++dropped) DropOldest();
  return dropped;
}

bool PrefetchQueue::Push(const PrefetchWish& wish) {
  WishesOf(wish.client).queue.push_back(wish);
  ++size_;
  if (size_ <= capacity_) return true;
  DropOldest();
  return false;
}

std::optional<PrefetchWish> PrefetchQueue::Pop() {
  if (size_ == 0) return std::nullopt;
  next_ %= clients_.size();
  std::deque<PrefetchWish>& queue = clients_[next_].queue;
  const PrefetchWish wish = queue.front();
  queue.pop_front();
  --size_;
  if (queue.empty()) {
    Leave(next_);
  } else {
    ++next_;
  }
  return wish;
}

size_t PrefetchQueue::Cancel(uint64_t client) {
  for (size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i].client != client) continue;
    const size_t dropped = clients_[i].queue.size();
    size_ -= dropped;
    Leave(i);
    return dropped;
  }
  return 0;
}

}  // namespace odmoe
