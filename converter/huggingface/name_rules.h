// Renaming weights by rules: one row a kind of tensor.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace odmoe {

// What becomes of a weight.
enum class RuleKind {
  kCopy,           // as it is
  kStackExpert,    // one matrix of a layer's stack of experts
  kSplitKeyValue,  // MLA's kv_b_proj: the key half transposed and the value half, head by head
};

// Layers a rule is for.
enum class RulePlace { kModel, kEveryLayer, kDenseLayers, kExpertLayers };

// A dimension of a weight, as the configuration gives it.
enum class Dim {
  kNone, kVocabulary, kHidden, kFeedForward, kExpertFeedForward, kSharedFeedForward, kExperts,
  kQueryRank, kQueryHeads, kKeyValueLatent, kKeyValueRank, kKeyValueHeads, kValueHeads,
};

// `{}` stands for the layer, then for the expert.
struct NameRule {
  absl::string_view from;
  absl::string_view to;      // for kSplitKeyValue, the key half's
  RulePlace place;
  std::array<Dim, 2> shape;  // row-major; a vector has kNone second
  RuleKind kind = RuleKind::kCopy;
};

// The numbers at the `{}` of `pattern`, where `name` matches it; none where it has no `{}`.
std::optional<std::vector<int32_t>> MatchName(absl::string_view pattern, absl::string_view name);

// `pattern` with its `{}` replaced in order.
std::string FillName(absl::string_view pattern, const std::vector<int32_t>& numbers);

}  // namespace odmoe
