// Experts asked for ahead of need, in the order they will be wanted.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace odmoe {

// One wish.
struct PrefetchWish {
  int64_t expert = 0;
  uint64_t client = 0;
  uint64_t pass = 0;   // the client's pass over the layers that it is meant for: once that is over,
                       // as when a token is finished, the wish is late
  uint64_t clock = 0;  // the store's demand clock when it was wished: a later demand of the same
                       // client for the expert's layer makes the wish late
};

// A queue of bounded length. A client's wishes come in their order, clients take turns: one that
// wishes for much neither delays nor drops the others' wishes. O(clients) a call. Not thread-safe:
// the store calls it under its lock.
class PrefetchQueue {
 public:
  explicit PrefetchQueue(size_t capacity) : capacity_(capacity) {}

  // Another length from now on; how many wishes had to go for it.
  size_t SetCapacity(size_t capacity);
  // False: full; the oldest wish, the likeliest to be late, of the client with the most was dropped
  // to make room.
  bool Push(const PrefetchWish& wish);
  std::optional<PrefetchWish> Pop();
  // Drops a client's wishes; how many.
  size_t Cancel(uint64_t client);
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }

 private:
  struct Wishes {
    uint64_t client = 0;
    std::deque<PrefetchWish> queue;  // not empty
  };

  Wishes& WishesOf(uint64_t client);
  void DropOldest();
  // A client has no wishes any more.
  void Leave(size_t index);

  size_t capacity_;
  size_t size_ = 0;              // of all
  std::vector<Wishes> clients_;  // that wish for anything
  size_t next_ = 0;              // whose turn it is
};

}  // namespace odmoe
