// What there is to check in each kind of model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "converter/verify/check_items.h"
#include "converter/verify/verify.h"
#include "services/core/io/file.h"

namespace odmoe {

// A model opened for checking.
struct GatheredModel {
  std::string kind;
  std::vector<Damage> damages;     // found in headers already
  std::vector<CheckedItem> items;  // experts first
  int64_t expert_count = 0;
};

// Finds out what kind of model it is. NOT_FOUND, INVALID_ARGUMENT: as VerifyModel. Anything else
// that is wrong is among the damages.
absl::StatusOr<GatheredModel> GatherItems(FileSystem& fs, const std::string& path);

}  // namespace odmoe
