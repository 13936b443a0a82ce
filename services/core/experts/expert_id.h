// Names of experts.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"

namespace odmoe {

// One routed expert: the gated MLP number `expert` of the model's layer `layer`, both from 0.
struct ExpertId {
  int32_t layer = 0;
  int32_t expert = 0;

  friend auto operator<=>(const ExpertId&, const ExpertId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, ExpertId id) {
    return H::combine(std::move(h), id.layer, id.expert);
  }
};

// "layer_00_expert_000": the key in registry.json and the file's stem. Digits grow where needed.
inline std::string ExpertName(ExpertId id) {
  return absl::StrFormat("layer_%02d_expert_%03d", id.layer, id.expert);
}

}  // namespace odmoe
