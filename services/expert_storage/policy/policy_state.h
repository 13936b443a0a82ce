// What policies save, as bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace odmoe {

// The values as they lie in memory: read on the same machine.
std::string FloatsToState(const std::vector<float>& values);
// Nothing: not `count` values, or one outside [least, most].
std::optional<std::vector<float>> FloatsFromState(absl::string_view state, size_t count,
                                                  float least, float most);

}  // namespace odmoe
