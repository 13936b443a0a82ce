// Attaches to a store, pins the experts named on the command line, says so, and holds them until it
// is killed.
//
//   odmoe_pinning_client ENDPOINT LAYER EXPERT...
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <vector>

#include "absl/time/clock.h"
#include "clients/cpp/shared_memory_expert_store.h"

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const auto store = odmoe::ConnectSharedMemoryStore(argv[1], "");
  if (!store.ok()) {
    std::cerr << store.status() << "\n";
    return 1;
  }
  std::vector<odmoe::ExpertId> ids;
  for (int i = 3; i < argc; ++i) ids.push_back({std::atoi(argv[2]), std::atoi(argv[i])});
  const auto batch = (*store)->Acquire(ids, absl::Now() + absl::Minutes(1));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!batch.ok() || !(*batch)->Wait(i).ok()) return 1;
  }
  std::cout << "pinned" << std::endl;
  while (true) pause();
}
