// Jobs as messages of odmoe.conversion.v1, for the service and its clients.
#pragma once

#include "absl/status/statusor.h"
#include "odmoe/conversion/v1/conversion_service.pb.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// What of a job's text is not UTF-8, as a message may not be, is replaced: protobuf carries no
// other.
conversion::v1::JobSpec ToProto(const JobSpec& spec);
conversion::v1::Job ToProto(const Job& job);

// INVALID_ARGUMENT, naming the field: no steps or too many, one without work or of a kind not known
// here, a path that is missing, text that is too long, a number out of range. What the paths lead
// to is the queue's to judge.
absl::StatusOr<JobSpec> FromProto(const conversion::v1::JobSpec& spec);
// UNIMPLEMENTED: a state or a kind of step that is not known here, so of a newer service.
absl::StatusOr<Job> FromProto(const conversion::v1::Job& job);

}  // namespace odmoe
