// Which experts a model chose, token by token, as a file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/io/file.h"

namespace odmoe {

// The file is JSON, an object a line. The first line describes the model:
//   {"model":"x","experts":64,"layers":16,"top_k":8,"tokens":299,"expert_bytes":3538944}
// every other line is a token, with the experts it chose in each layer that has any:
//   {"token":0,"phase":"decode","experts":[[6,8,15],..]}
// "phase" is "prefill" or "decode", the latter where it is missing. Layers may be missing at the
// end of a token, and a list may be empty, or null. An expert that a list names twice counts once.
// Other keys are ignored.
struct RouteTrace {
  struct Token {
    bool prefill = false;
    std::vector<std::vector<int32_t>> experts;  // by layer, distinct, in routing order
  };

  std::string model;
  int32_t expert_count = 0;   // of a layer
  int32_t layer_count = 0;
  int32_t top_k = 0;          // experts a token asks of a layer
  uint64_t expert_bytes = 0;  // 0: not known
  std::vector<Token> tokens;

  // Experts that one token demands.
  int64_t demand() const { return int64_t{layer_count} * top_k; }
};

// INVALID_ARGUMENT: not such a trace, with `source` and the line; a token that names experts or
// layers the model has not; a model of more experts than a catalog holds.
absl::StatusOr<RouteTrace> ParseRouteTrace(absl::string_view text, const std::string& source);
// Of at most 1 GiB. Errors of ReadWholeFile too.
absl::StatusOr<RouteTrace> ReadRouteTrace(FileSystem& fs, const std::string& path);

// The file's text.
std::string FormatRouteTrace(const RouteTrace& trace);

}  // namespace odmoe
