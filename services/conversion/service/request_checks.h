// The fields of requests that are no job's, checked.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "odmoe/conversion/v1/conversion_service.pb.h"

namespace odmoe {

// INVALID_ARGUMENT, naming the field, from all.
absl::StatusOr<std::string> CheckJobId(const std::string& job_id);
absl::StatusOr<std::string> CheckRequestId(const std::string& request_id);
absl::StatusOr<int> CheckPageSize(int32_t page_size);
// -1 where it is absent: from now.
absl::StatusOr<int64_t> CheckAfterVersion(const conversion::v1::WatchJobRequest& request);

}  // namespace odmoe
