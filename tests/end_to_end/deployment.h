// The services of one model, as they would run beside each other on a host.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/end_to_end/programs.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {

// Expert storage with tiny-kimi open under a budget, on a UNIX socket whose path stays the same
// when the store is started again; then inference and a gateway, where a test asks for them.
class Deployment {
 public:
  explicit Deployment(std::string expert_budget = "25%") : expert_budget_(expert_budget) {}

  void StartStore();
  void StartInference();
  void StartGateway();

  Service& store() { return store_; }
  Service& inference() { return inference_; }
  Service& gateway() { return gateway_; }

 private:
  const std::string expert_budget_;
  const TemporaryDirectory directory_;
  Service store_, inference_, gateway_;
};

}  // namespace odmoe
