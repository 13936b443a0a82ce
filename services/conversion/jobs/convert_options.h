// From a job's conversion to the converter's options.
#pragma once

#include "converter/convert.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// The same conversion, on the process's own file system.
ConvertOptions ToConvertOptions(const ConvertSpec& spec);

}  // namespace odmoe
