// What to do about an expert that is not resident here while a second host's store is at hand.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

enum class RemoteMode {
  kFetch,    // bring it here
  kExecute,  // have it computed there; bring it here only where that fails
  kAuto,     // whichever has cost less
};

// "fetch", "execute" or "auto". INVALID_ARGUMENT: anything else.
absl::StatusOr<RemoteMode> ParseRemoteMode(absl::string_view text);
absl::string_view RemoteModeName(RemoteMode mode);

}  // namespace odmoe
