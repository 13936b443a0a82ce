// What a README.md says about its model, in the YAML between two lines "---" at its beginning.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/io/file.h"

namespace odmoe {

// The card's members as an object; an empty one where there is no README.md or nothing at its
// beginning. Plain numbers and truth values keep their kind, what else is there is text.
nlohmann::json ReadModelCard(FileSystem& fs, const std::string& folder);

// The same of a README.md's text. INVALID_ARGUMENT: not YAML, not an object, an alias (which could
// make a small text a huge one), nesting of more than 32 levels.
absl::StatusOr<nlohmann::json> ParseModelCard(absl::string_view readme);

}  // namespace odmoe
