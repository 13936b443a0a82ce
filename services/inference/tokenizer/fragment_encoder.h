// The part of a tokenizer that differs from family to family.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// Turns text between special tokens into tokens. Immutable, thread-safe.
class FragmentEncoder {
 public:
  virtual ~FragmentEncoder() = default;
  // Appends the tokens of `fragment`, which is UTF-8. RESOURCE_EXHAUSTED: splitting it ran into the
  // expressions' step limit.
  virtual absl::Status Encode(absl::string_view fragment, std::vector<TokenId>& tokens) const = 0;
};

}  // namespace odmoe
