#include "services/core/experts/remote_mode.h"

#include "absl/strings/str_cat.h"

namespace odmoe {

absl::StatusOr<RemoteMode> ParseRemoteMode(absl::string_view text) {
  for (const RemoteMode mode : {RemoteMode::kFetch, RemoteMode::kExecute, RemoteMode::kAuto}) {
    if (text == RemoteModeName(mode)) return mode;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("remote mode '", text, "': expected fetch, execute or auto"));
}

absl::string_view RemoteModeName(RemoteMode mode) {
  switch (mode) {
    case RemoteMode::kFetch:
      return "fetch";
    case RemoteMode::kExecute:
      return "execute";
    case RemoteMode::kAuto:
      return "auto";
  }
  return "";
}

}  // namespace odmoe
