#include "services/expert_storage/policy/policy_state.h"

#include <cstring>

namespace odmoe {

std::string FloatsToState(const std::vector<float>& values) {
  std::string state(values.size() * sizeof(float), '\0');
  if (!values.empty()) std::memcpy(state.data(), values.data(), state.size());
  return state;
}

std::optional<std::vector<float>> FloatsFromState(absl::string_view state, size_t count,
                                                  float least, float most) {
  if (state.size() != count * sizeof(float)) return std::nullopt;
  std::vector<float> values(count);
  if (count > 0) std::memcpy(values.data(), state.data(), state.size());
  for (const float value : values) {
    // Not a number compares false.
    if (!(value >= least && value <= most)) return std::nullopt;
  }
  return values;
}

}  // namespace odmoe
