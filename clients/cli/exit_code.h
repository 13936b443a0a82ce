// How the process ends, and how it says why.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace odmoe {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

// An INVALID_ARGUMENT that is about the command line itself.
absl::Status UsageError(absl::string_view message);

// `status`, whose message --json has already written to standard output as part of the result.
absl::Status AlreadyWritten(absl::Status status);
bool IsAlreadyWritten(const absl::Status& status);

// 0: OK. 2: a UsageError. 130: CANCELLED, by Ctrl-C or SIGTERM. 1: all else.
int ExitCode(const absl::Status& status);

// "odmoe: <message>" on one line, whatever the message holds.
std::string ErrorLine(const absl::Status& status);

// {"error":{"code":"NOT_FOUND","message":"..."}}: what --json writes to standard output instead of
// a result.
std::string ErrorDocument(const absl::Status& status);

}  // namespace odmoe
