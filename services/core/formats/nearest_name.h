// The name a person or a tool probably meant.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace odmoe {

// Insertions, deletions and replacements that turn `a` into `b`.
size_t EditDistance(absl::string_view a, absl::string_view b);

// The candidate with the smallest distance, the first of equals; "" where there is none.
std::string NearestName(absl::string_view wanted, const std::vector<std::string>& candidates);

}  // namespace odmoe
