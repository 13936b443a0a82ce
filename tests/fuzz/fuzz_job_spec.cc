// Job files: what is accepted comes back the same when its steps are written and read again.
#include <string>

#include "services/conversion/jobs/job_spec_json.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto spec = ParseJobSpec(text, "input");
  if (!spec.ok()) {
    Require(absl::IsInvalidArgument(spec.status()), "a refusal has another code");
    return 0;
  }
  Require(!spec->steps.empty() && spec->steps.size() <= JobSpec::kMaxSteps,
          "an accepted file has no steps, or too many");
  for (const StepSpec& step : spec->steps) {
    const auto written = StepSpecToJson(step);
    Require(written.ok(), "an accepted step cannot be written");
    const auto again = StepSpecFromJson(*written, "again");
    Require(again.ok() && *again == step, "a step comes back changed");
  }
  return 0;
}
