// absl::Status as OpenAI's HTTP API tells it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "services/core/http/http_message.h"

namespace odmoe {

// INVALID_ARGUMENT about the request's member `param`, which the answer names.
absl::Status InvalidParam(absl::string_view param, absl::string_view message);
// NOT_FOUND with OpenAI's code model_not_found.
absl::Status ModelNotFound(absl::string_view model);

//   INVALID_ARGUMENT, OUT_OF_RANGE 400 | UNAUTHENTICATED 401 | PERMISSION_DENIED 403
//   NOT_FOUND 404 | CANCELLED 499 | RESOURCE_EXHAUSTED 429 | UNIMPLEMENTED 501
//   UNAVAILABLE, FAILED_PRECONDITION, ABORTED 503 | DEADLINE_EXCEEDED 504 | other 500
int HttpStatusOf(absl::StatusCode code);

// {"error":{"message","type","param","code"}}
std::string ErrorJson(const absl::Status& status);
// The same as an answer, with Retry-After where trying again may help.
HttpResponse ErrorResponse(const absl::Status& status);
// An error that has an HTTP status and no absl::StatusCode: 405, 413, 431.
HttpResponse ErrorResponse(int http_status, absl::string_view message);

}  // namespace odmoe
