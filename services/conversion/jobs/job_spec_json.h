// A job's specification as JSON: what `odmoe jobs submit FILE` reads and the job database keeps.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// A job file:
//   {"priority": 5,
//    "steps": [
//      {"convert": {"source": "Kimi-K2", "destination": "kimi-q8.gguf", "outtype": "q8_0"}},
//      {"convert": {"source": "kimi-q8.gguf", "destination": "kimi"}},
//      {"verify": {"source": "kimi"}},
//      {"evaluate": {"model": "kimi", "text": "chapter.txt"}}]}
// Fields of a step are those of its ...Spec, under the same names. `where` names it
// in messages. INVALID_ARGUMENT: not JSON, a field that is missing, unknown or of another type, no
// steps or too many, a priority out of range.
absl::StatusOr<JobSpec> ParseJobSpec(absl::string_view text, const std::string& where);

// One step, an object with one member, its kind. Fields at their defaults are left out.
// INVALID_ARGUMENT: text that is not UTF-8.
absl::StatusOr<std::string> StepSpecToJson(const StepSpec& step);
// INVALID_ARGUMENT as above.
absl::StatusOr<StepSpec> StepSpecFromJson(absl::string_view text, const std::string& where);

}  // namespace odmoe
