// Renaming weights by rules: one row a kind of tensor.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "converter/huggingface/dimension.h"

namespace odmoe {

// What becomes of a weight.
enum class RuleKind {
  kCopy,           // as it is
  kRotaryQuery,    // rows of each query head reordered from rotary halves to pairs
  kRotaryKey,      // the same for key heads
  kStackExpert,    // one matrix of a layer's stack of experts
  kFusedStack,     // a layer's whole stack
  kFusedGateUp,    // a layer's gate and up stacks in one: rows of an expert's gate, then of its up
  kSplitKeyValue,  // MLA's kv_b_proj: the key half transposed and the value half, head by head
};

// Where in a model a rule's weight is.
enum class RulePlace { kModel, kEveryLayer, kDenseLayers, kExpertLayers };

enum class RuleNeed {
  kRequired,     // wherever the rule applies
  kOptional,     // taken where it is there
  kIfFused,      // in layers whose experts are stored fused, as those themselves are
  kUnlessFused,  // in the others, as separate experts are
  kOneSpelling,  // under one of the names that rules with the same `to` give it
};

// `{}` stands for the layer, then for the expert. A rule one of whose dimensions is zero in a
// configuration does not apply there.
struct NameRule {
  absl::string_view from;
  absl::string_view to;
  RulePlace place;
  std::array<Dim, 3> shape;  // row-major; unused ones kNone
  RuleKind kind = RuleKind::kCopy;
  RuleNeed need = RuleNeed::kRequired;
  absl::string_view second = {};  // of kSplitKeyValue the value half's name, of kFusedGateUp up's
};

// The numbers at the `{}` of `pattern`, where `name` matches it; none where it has no `{}`.
std::optional<std::vector<int32_t>> MatchName(absl::string_view pattern, absl::string_view name);

// `pattern` with its `{}` replaced in order.
std::string FillName(absl::string_view pattern, const std::vector<int32_t>& numbers);

}  // namespace odmoe
