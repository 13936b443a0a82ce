// Attaches to a store, pins the experts named on the command line, says both, and holds them until
// it is killed.
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
  std::cout << "attached" << std::endl;
  std::vector<odmoe::ExpertId> ids;
  for (int i = 3; i < argc; ++i) ids.push_back({std::atoi(argv[2]), std::atoi(argv[i])});
  const auto batch = (*store)->Acquire(ids, absl::Now() + absl::Minutes(1));
  absl::Status status = batch.status();
  for (size_t i = 0; status.ok() && i < ids.size(); ++i) status = (*batch)->Wait(i).status();
  if (!status.ok()) {
    std::cerr << status << std::endl;
    return 1;
  }
  std::cout << "pinned" << std::endl;
  while (true) pause();
}
