#include "services/gateway/openai/api_error.h"

#include <nlohmann/json.hpp>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

constexpr absl::string_view kParamUrl = "odmoe/openai.param";
constexpr absl::string_view kCodeUrl = "odmoe/openai.code";

std::string TypeOf(int http_status) {
  switch (http_status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 503: return "service_unavailable_error";
    default: return http_status < 500 ? "invalid_request_error" : "server_error";
  }
}

nlohmann::json PayloadOrNull(const absl::Status& status, absl::string_view url) {
  const auto payload = status.GetPayload(url);
  return payload ? nlohmann::json(std::string(*payload)) : nlohmann::json(nullptr);
}

std::string Encode(absl::string_view message, int http_status, const nlohmann::json& param,
                   const nlohmann::json& code) {
  const nlohmann::json error = {{"error",
                                 {{"message", std::string(message)},
                                  {"type", TypeOf(http_status)},
                                  {"param", param},
                                  {"code", code}}}};
  return error.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

absl::Status InvalidParam(absl::string_view param, absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(param, ": ", message));
  status.SetPayload(kParamUrl, absl::Cord(param));
  return status;
}

absl::Status ModelNotFound(absl::string_view model) {
  absl::Status status =
      absl::NotFoundError(absl::StrCat("The model '", model, "' does not exist"));
  status.SetPayload(kParamUrl, absl::Cord("model"));
  status.SetPayload(kCodeUrl, absl::Cord("model_not_found"));
  return status;
}

int HttpStatusOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk: return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange: return 400;
    case absl::StatusCode::kUnauthenticated: return 401;
    case absl::StatusCode::kPermissionDenied: return 403;
    case absl::StatusCode::kNotFound: return 404;
    case absl::StatusCode::kResourceExhausted: return 429;
    case absl::StatusCode::kCancelled: return 499;
    case absl::StatusCode::kUnimplemented: return 501;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kFailedPrecondition: return 503;
    case absl::StatusCode::kDeadlineExceeded: return 504;
    default: return 500;
  }
}

std::string ErrorJson(const absl::Status& status) {
  return Encode(absl::string_view(status.message()), HttpStatusOf(status.code()),
                PayloadOrNull(status, kParamUrl), PayloadOrNull(status, kCodeUrl));
}

HttpResponse ErrorResponse(const absl::Status& status) {
  HttpResponse response;
  response.status = HttpStatusOf(status.code());
  response.body = ErrorJson(status);
  if (response.status == 429 || response.status == 503) {
    response.headers.emplace_back("Retry-After", "1");
  }
  if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

HttpResponse ErrorResponse(int http_status, absl::string_view message) {
  HttpResponse response;
  response.status = http_status;
  response.body = Encode(message, http_status, nullptr, nullptr);
  return response;
}

}  // namespace odmoe
