// What a conversion will make and what it will take, for people and programs to look at first.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "converter/convert.h"

namespace odmoe {

// All tensors of one format.
struct FormatTotal {
  std::string format;
  int64_t tensors = 0;
  uint64_t bytes = 0;
};

// How long it should take: the slower of the disk and the encoding.
struct TimeEstimate {
  double seconds = 0;
  // Assumed, as nothing is written to find out: what a common NVMe drive keeps up while it reads
  // the source as well.
  uint64_t disk_bytes_per_second = 0;
  // Measured here, on a few MiB in memory, times the workers; 0 where bytes are copied as they are.
  uint64_t encode_bytes_per_second = 0;
};

struct PlanDescription {
  std::vector<FormatTotal> totals;  // by format, the most bytes first
  uint64_t data_bytes = 0;          // of all tensors
  uint64_t disk_bytes = 0;          // what the output takes
  uint64_t memory_bytes = 0;        // resident at most, roughly: buffers and headers
  TimeEstimate time;
};

// Takes some ten milliseconds, for the measurement.
PlanDescription DescribePlan(const ConvertPlan& plan);

// A table of the tensors, then the totals.
std::string PlanText(const ConvertPlan& plan, const PlanDescription& description);
// {"source","outputs","architecture","steps":[..],"tensors":[..],"totals":[..],"disk_bytes",..}.
std::string PlanJson(const ConvertPlan& plan, const PlanDescription& description);

}  // namespace odmoe
