// The flags of a conversion, as `odmoe convert` and `odmoe jobs submit` take them.
#pragma once

#include "CLI/CLI.hpp"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// One flag for each field of `spec` but its source and destination; it outlives `command`.
void AddConvertFlags(CLI::App& command, ConvertSpec& spec);

// `spec` with its paths as a service must be told them.
ConvertSpec WithAbsolutePaths(ConvertSpec spec);

}  // namespace odmoe
