#include "services/core/rpc/status_codec.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "services/core/base/utf8.h"

namespace odmoe {
namespace {

constexpr absl::string_view kBadRequestUrl = "type.googleapis.com/google.rpc.BadRequest";
constexpr size_t kMaxMessageBytes = 4096;

// The codes of absl and gRPC are the same numbers by definition of both.
static_assert(int(absl::StatusCode::kOk) == int(grpc::StatusCode::OK));
static_assert(int(absl::StatusCode::kCancelled) == int(grpc::StatusCode::CANCELLED));
static_assert(int(absl::StatusCode::kUnknown) == int(grpc::StatusCode::UNKNOWN));
static_assert(int(absl::StatusCode::kInvalidArgument) == int(grpc::StatusCode::INVALID_ARGUMENT));
static_assert(int(absl::StatusCode::kDeadlineExceeded) == int(grpc::StatusCode::DEADLINE_EXCEEDED));
static_assert(int(absl::StatusCode::kNotFound) == int(grpc::StatusCode::NOT_FOUND));
static_assert(int(absl::StatusCode::kAlreadyExists) == int(grpc::StatusCode::ALREADY_EXISTS));
static_assert(int(absl::StatusCode::kPermissionDenied) == int(grpc::StatusCode::PERMISSION_DENIED));
static_assert(int(absl::StatusCode::kUnauthenticated) == int(grpc::StatusCode::UNAUTHENTICATED));
static_assert(int(absl::StatusCode::kResourceExhausted) ==
              int(grpc::StatusCode::RESOURCE_EXHAUSTED));
static_assert(int(absl::StatusCode::kFailedPrecondition) ==
              int(grpc::StatusCode::FAILED_PRECONDITION));
static_assert(int(absl::StatusCode::kAborted) == int(grpc::StatusCode::ABORTED));
static_assert(int(absl::StatusCode::kOutOfRange) == int(grpc::StatusCode::OUT_OF_RANGE));
static_assert(int(absl::StatusCode::kUnimplemented) == int(grpc::StatusCode::UNIMPLEMENTED));
static_assert(int(absl::StatusCode::kInternal) == int(grpc::StatusCode::INTERNAL));
static_assert(int(absl::StatusCode::kUnavailable) == int(grpc::StatusCode::UNAVAILABLE));
static_assert(int(absl::StatusCode::kDataLoss) == int(grpc::StatusCode::DATA_LOSS));

// Protobuf strings must be UTF-8, and a message may quote bytes of a hostile file.
std::string PrintableMessage(absl::string_view message) {
  // A few bytes more than are kept, so that no character which is kept was cut in two before.
  std::string text = ReplaceInvalidUtf8(message.substr(0, kMaxMessageBytes + 3));
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') c = '?';
  }
  if (text.size() > kMaxMessageBytes) {
    size_t end = kMaxMessageBytes;
    while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text.resize(end);
  }
  return text;
}

bool WorthRetrying(absl::StatusCode code) {
  return code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kResourceExhausted;
}

}  // namespace

absl::Status InvalidField(absl::string_view field, absl::string_view description) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(field, ": ", description));
  google::rpc::BadRequest details;
  auto* violation = details.add_field_violations();
  violation->set_field(PrintableMessage(field));
  violation->set_description(PrintableMessage(description));
  status.SetPayload(kBadRequestUrl, absl::Cord(details.SerializeAsString()));
  return status;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status rich;
  rich.set_code(static_cast<int>(status.code()));
  rich.set_message(PrintableMessage(status.message()));
  google::rpc::ErrorInfo info;
  info.set_reason(absl::StatusCodeToString(status.code()));
  info.set_domain("odmoe");
  rich.add_details()->PackFrom(info);
  if (const auto payload = status.GetPayload(kBadRequestUrl)) {
    google::rpc::BadRequest details;
    if (details.ParseFromString(std::string(*payload))) rich.add_details()->PackFrom(details);
  }
  if (WorthRetrying(status.code())) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(1);
    rich.add_details()->PackFrom(retry);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), rich.message(),
                      rich.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()),
                      PrintableMessage(status.error_message()));
  google::rpc::Status rich;
  if (status.error_details().empty() || !rich.ParseFromString(status.error_details())) {
    return result;
  }
  for (const google::protobuf::Any& detail : rich.details()) {
    if (detail.Is<google::rpc::BadRequest>()) {
      result.SetPayload(kBadRequestUrl, absl::Cord(detail.value()));
    }
  }
  return result;
}

}  // namespace odmoe
