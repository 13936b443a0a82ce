// What came of a quantization, as a table.
#pragma once

#include <string>

#include "services/core/jobs/job_queue.h"

namespace odmoe {

// A line a type: its size and bits per weight, and of what was measured perplexity, KL divergence
// and tokens per second. Lines ending in '\n'.
std::string QuantizeSummary(const QuantizeSpec& spec, const StepResult& result);

}  // namespace odmoe
