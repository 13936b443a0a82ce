#include "services/conversion/service/request_checks.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxJobIdBytes = 64;
constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;

absl::Status CheckSize(const std::string& field, const std::string& value, size_t limit) {
  if (value.size() <= limit) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("has ", value.size(), " bytes, at most ", limit,
                                          " are allowed"));
}

}  // namespace

absl::StatusOr<std::string> CheckJobId(const std::string& job_id) {
  if (job_id.empty()) return InvalidField("job_id", "is empty");
  ODMOE_RETURN_IF_ERROR(CheckSize("job_id", job_id, kMaxJobIdBytes));
  return job_id;
}

absl::StatusOr<std::string> CheckRequestId(const std::string& request_id) {
  ODMOE_RETURN_IF_ERROR(CheckSize("request_id", request_id, kMaxRequestIdBytes));
  return request_id;
}

absl::StatusOr<int> CheckPageSize(int32_t page_size) {
  if (page_size == 0) return kDefaultPageSize;
  if (page_size < 0 || page_size > kMaxPageSize) {
    return InvalidField("page_size",
                        absl::StrCat(page_size, " is not between 0 and ", kMaxPageSize));
  }
  return page_size;
}

absl::StatusOr<int64_t> CheckAfterVersion(const v1::WatchJobRequest& request) {
  if (!request.has_after_version()) return -1;
  if (request.after_version() < 0) {
    return InvalidField("after_version", absl::StrCat(request.after_version(), " is negative"));
  }
  return request.after_version();
}

}  // namespace odmoe
