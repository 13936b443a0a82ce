// Recorded routing: what is accepted comes back the same when written and read again, and replays.
#include <algorithm>
#include <string>

#include "services/expert_storage/replay/replay.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto trace = ParseRouteTrace(text, "input");
  if (!trace.ok()) {
    Require(absl::IsInvalidArgument(trace.status()), "a refusal has another code");
    return 0;
  }
  const std::string written = FormatRouteTrace(*trace);
  const auto again = ParseRouteTrace(written, "again");
  Require(again.ok() && FormatRouteTrace(*again) == written, "a trace comes back changed");
  // A model of a few bytes may still be a large one.
  if (int64_t{trace->layer_count} * trace->expert_count > 4096) return 0;
  const int64_t slots = std::max<int64_t>(1, trace->demand() / 2);
  for (const char* policy : {"default", "lru", "belady"}) {
    const auto result = Replay(*trace, *ParseReplayPolicy(policy), slots);
    if (!result.ok()) {
      Require(absl::IsInvalidArgument(result.status()), "a replay fails");
      continue;
    }
    Require(result->hits >= 0 && result->hits <= result->accesses, "more hits than demands");
  }
  return 0;
}
