#include "clients/cli/commands/destination.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "converter/convert.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

absl::Status RemoveDestination(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error) && !fs::is_empty(path, error) &&
      !fs::exists(fs::path(path) / "base_model", error) &&
      !fs::exists(fs::path(path) / "experts", error)) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " is a folder with other things in it, which --force does not remove"));
  }
  fs::remove_all(path, error);
  if (error) {
    return absl::PermissionDeniedError(absl::StrCat("cannot remove ", path, ": ", error.message()));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsTaken(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return false;
  return !fs::is_directory(path, error) || !fs::is_empty(path, error);
}

absl::Status CheckNotTaken(const std::string& path, bool force) {
  if (force || !IsTaken(path)) return absl::OkStatus();
  return absl::AlreadyExistsError(
      absl::StrCat(path, " exists; give another -o, or --force to replace it"));
}

absl::Status ClearOutputs(const std::vector<std::string>& outputs, const std::string& destination,
                          bool force) {
  if (HasUnfinishedConversion(PosixFileSystem(), destination)) return absl::OkStatus();
  for (const std::string& path : outputs) {
    ODMOE_RETURN_IF_ERROR(CheckNotTaken(path, force));
    if (IsTaken(path)) ODMOE_RETURN_IF_ERROR(RemoveDestination(path));
  }
  return absl::OkStatus();
}

}  // namespace odmoe
