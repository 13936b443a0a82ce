// What a command that makes model files may replace.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace odmoe {

// Whether there is something that would be replaced: not an empty folder.
bool IsTaken(const std::string& path);

// ALREADY_EXISTS: something is there, and --force is not.
absl::Status CheckNotTaken(const std::string& path, bool force);

// Makes room for `outputs`, unless an interrupted conversion to `destination` is to be gone on
// with. Only for what a plan has been made: one that cannot work must not cost the user what is
// there. ALREADY_EXISTS: as above. FAILED_PRECONDITION: a folder with other things in it, which
// --force does not remove: a mistyped -o must not empty it.
absl::Status ClearOutputs(const std::vector<std::string>& outputs, const std::string& destination,
                          bool force);

}  // namespace odmoe
