// absl::Status to and from gRPC's, with google.rpc.Status details in the trailer, so that clients
// in any language see reason, field violations and retry delay.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpcpp/support/status.h"

namespace odmoe {

// INVALID_ARGUMENT that names the request's field, "sampling.top_p"; travels as a BadRequest
// detail.
absl::Status InvalidField(absl::string_view field, absl::string_view description);

// Same code and message; details: ErrorInfo with the code's name as reason and domain "odmoe",
// BadRequest where InvalidField made it, RetryInfo for UNAVAILABLE and RESOURCE_EXHAUSTED.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The inverse: code, message, and the field violations. A message is cut at 4 KiB.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace odmoe
