// From a job's conversion to the converter's options.
#pragma once

#include "absl/status/status.h"
#include "converter/convert.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// UNIMPLEMENTED: the specification asks for what the converter cannot do.
absl::Status CheckConvertible(const ConvertSpec& spec);

// The same conversion, on the process's own file system.
ConvertOptions ToConvertOptions(const ConvertSpec& spec);

}  // namespace odmoe
