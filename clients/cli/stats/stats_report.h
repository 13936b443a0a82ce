// A service's statistics for people and for programs, once.
#pragma once

#include <string>
#include <vector>

#include "clients/cli/json_output.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/remote_language_model.h"

namespace odmoe {

struct StatsReport {
  std::string title;
  Json json;
  std::vector<std::vector<std::string>> rows;  // name and value
};

StatsReport StoreReport(const std::string& endpoint, const RemoteStoreStats& model);
StatsReport InferenceReport(const std::string& endpoint, const InferenceStats& stats);

}  // namespace odmoe
