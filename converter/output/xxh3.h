// XXH3-64 over bytes that come in pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <xxhash.h>

#include "absl/types/span.h"

namespace odmoe {

struct FreeXxh3State {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};
using Xxh3State = std::unique_ptr<XXH3_state_t, FreeXxh3State>;

// Not thread-safe.
class Xxh3 {
 public:
  Xxh3() : state_(XXH3_createState()) { Reset(); }

  void Reset() { XXH3_64bits_reset(state_.get()); }
  void Update(absl::Span<const std::byte> bytes) {
    XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
  }
  // Of what came since Reset.
  uint64_t Digest() const { return XXH3_64bits_digest(state_.get()); }

 private:
  Xxh3State state_;
};

}  // namespace odmoe
