// Pins experts at random and checks every byte of them by the hash the registry has, until it is
// told to end; lives through the deaths of its store.
//
//   odmoe_checking_client ENDPOINT SEED
//
// Ends with SIGTERM, one line of counts, and 0; with 3 where a byte was wrong or an error was none
// that a dying store may cause.
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <random>
#include <vector>

#include "absl/time/clock.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "xxhash.h"

namespace {

volatile sig_atomic_t told_to_end = 0;

struct Counts {
  uint64_t right = 0;
  uint64_t wrong = 0;
  uint64_t unavailable = 0;
  uint64_t strange = 0;
};

void Count(const absl::Status& status, Counts& counts) {
  if (absl::IsUnavailable(status)) {
    ++counts.unavailable;
    return;
  }
  ++counts.strange;
  std::cerr << status << std::endl;
}

void PinAndCheck(odmoe::ExpertStore& store, const std::vector<odmoe::ExpertId>& ids,
                 Counts& counts) {
  const auto batch = store.Acquire(ids, absl::Now() + absl::Minutes(1));
  if (!batch.ok()) return Count(batch.status(), counts);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto view = (*batch)->Wait(i);
    if (!view.ok()) return Count(view.status(), counts);
    const auto& layer = *store.catalog().FindLayer(ids[i].layer);
    const bool good = XXH3_64bits(view->data, layer.layout.bytes) == layer.xxh3[ids[i].expert];
    ++(good ? counts.right : counts.wrong);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  signal(SIGTERM, [](int) { told_to_end = 1; });
  const auto store = odmoe::ConnectSharedMemoryStore(argv[1], "");
  if (!store.ok()) {
    std::cerr << store.status() << "\n";
    return 1;
  }
  std::mt19937 random(static_cast<uint32_t>(std::atoi(argv[2])));
  const auto& layers = (*store)->catalog().layers();
  Counts counts;
  absl::Time last_good = absl::Now();
  absl::Duration longest;
  while (told_to_end == 0) {
    const uint64_t before = counts.right;
    std::vector<odmoe::ExpertId> ids;
    for (uint32_t i = 0; i < 1 + random() % 2; ++i) {
      const auto& layer = layers[random() % layers.size()];
      ids.push_back({layer.layer, static_cast<int32_t>(random() % layer.expert_count)});
    }
    PinAndCheck(**store, ids, counts);
    if (counts.right == before) continue;
    longest = std::max(longest, absl::Now() - last_good);
    last_good = absl::Now();
  }
  std::cout << "right " << counts.right << " wrong " << counts.wrong << " unavailable "
            << counts.unavailable << " strange " << counts.strange << " longest_ms "
            << absl::ToInt64Milliseconds(longest) << std::endl;
  return counts.wrong + counts.strange == 0 ? 0 : 3;
}
