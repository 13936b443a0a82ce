// Experts asked for ahead of need, in the order they will be wanted.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

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

// A queue of bounded length. Not thread-safe: the store calls it under its lock.
class PrefetchQueue {
 public:
  explicit PrefetchQueue(size_t capacity) : capacity_(capacity) {}

  // False: full; the oldest wish, the likeliest to be late, was dropped to make room.
  bool Push(const PrefetchWish& wish);
  std::optional<PrefetchWish> Pop();
  // Drops a client's wishes; how many.
  size_t Cancel(uint64_t client);
  bool empty() const { return wishes_.empty(); }
  size_t size() const { return wishes_.size(); }

 private:
  const size_t capacity_;
  std::deque<PrefetchWish> wishes_;
};

}  // namespace odmoe
