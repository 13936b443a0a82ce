// What a model's name says: "Mistral-7B-Instruct-v0.2" is a base name, a size, a finetune, a
// version.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace odmoe {

// The parts of a Hugging Face model id, "organization/Name-Size-Finetune-Version", as the reference
// converter guesses them. Where it is too unclear which part is what there is only the full name.
struct ModelIdParts {
  std::string full_name;
  std::optional<std::string> organization, basename, finetune, version, size_label;
};

// `parameters` is how many weights the model has, negative for an adapter and 0 where it is
// unknown: a part that looks like a size and is far from it is no size ("128k" is a context
// length).
ModelIdParts ParseModelId(absl::string_view id, int64_t parameters);

// "Tiny Kimi" of "tiny-kimi": capitals after each non-letter of words in lower case; acronyms,
// numbers and versions such as "v1.5" stay.
std::string TitleOfId(absl::string_view id);

}  // namespace odmoe
