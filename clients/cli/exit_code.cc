#include "clients/cli/exit_code.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "clients/cli/json_output.h"

namespace odmoe {
namespace {

constexpr char kUsagePayload[] = "odmoe.dev/usage";
constexpr char kWrittenPayload[] = "odmoe.dev/written";

std::string Message(const absl::Status& status) {
  if (status.message().empty()) return absl::StatusCodeToString(status.code());
  return std::string(status.message());
}

}  // namespace

absl::Status UsageError(absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsagePayload, absl::Cord());
  return status;
}

absl::Status AlreadyWritten(absl::Status status) {
  status.SetPayload(kWrittenPayload, absl::Cord());
  return status;
}

bool IsAlreadyWritten(const absl::Status& status) {
  return status.GetPayload(kWrittenPayload).has_value();
}

int ExitCode(const absl::Status& status) {
  if (status.ok()) return kExitOk;
  if (absl::IsCancelled(status)) return kExitInterrupted;
  return status.GetPayload(kUsagePayload).has_value() ? kExitUsage : kExitFailure;
}

std::string ErrorLine(const absl::Status& status) {
  return absl::StrCat("odmoe: ", absl::StrReplaceAll(Message(status), {{"\r", ""}, {"\n", " "}}));
}

std::string ErrorDocument(const absl::Status& status) {
  Json error;
  error["error"]["code"] = absl::StatusCodeToString(status.code());
  error["error"]["message"] = Message(status);
  return DumpJson(error);
}

}  // namespace odmoe
