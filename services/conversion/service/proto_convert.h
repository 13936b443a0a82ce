// The conversion service's messages, to and from what services/core/jobs/job_queue.h calls them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "odmoe/conversion/v1/conversion_service.pb.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// What of a job's text is not UTF-8, as a path may not be, is replaced: protobuf carries no other.
conversion::v1::Job ToProto(const Job& job);
conversion::v1::JobState ToProto(JobState state);

// INVALID_ARGUMENT, naming the field: no work given, or text longer than the message allows. What
// the paths lead to is the queue's to judge.
absl::StatusOr<ConvertSpec> FromProto(const conversion::v1::JobSpec& spec);

// Checked values of the other fields; INVALID_ARGUMENT, naming the field.
absl::StatusOr<std::string> CheckJobId(const std::string& job_id);
absl::StatusOr<std::string> CheckRequestId(const std::string& request_id);
absl::StatusOr<int> CheckPageSize(int32_t page_size);
// -1 where it is absent: from now.
absl::StatusOr<int64_t> CheckAfterVersion(const conversion::v1::WatchJobRequest& request);

}  // namespace odmoe
