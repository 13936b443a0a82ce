// What a client sees of the conversion service: jobs on model files, here or on another host.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/core/base/cancellation.h"

namespace odmoe {

// What to do: turn the Hugging Face directory or GGUF file `source` into `destination`, a GGUF file
// where it ends in ".gguf" and else a model directory.
struct ConvertSpec {
  std::string source;
  std::string destination;
  std::string outtype = "auto";  // f32, f16, bf16, q8_0, auto; a GGUF source keeps its bytes
};

enum class JobState { kQueued, kRunning, kSucceeded, kFailed, kCancelled };

struct JobProgress {
  std::string step;        // "convert", "split"
  int32_t step_number = 0; // from 1
  int32_t step_count = 0;
  uint64_t done_bytes = 0; // of this step's output
  uint64_t total_bytes = 0;
  double bytes_per_second = 0.0;
  std::optional<absl::Duration> eta;  // for the whole job
  std::string item;        // the tensor or expert at hand
};

struct Job {
  std::string id;
  ConvertSpec spec;
  JobState state = JobState::kQueued;
  JobProgress progress;
  std::string error;       // why it failed
  absl::StatusCode error_code = absl::StatusCode::kOk;
  // InfinitePast where it has not happened.
  absl::Time created = absl::InfinitePast();
  absl::Time started = absl::InfinitePast();
  absl::Time finished = absl::InfinitePast();
  int64_t version = 0;     // grows with every change; a watch resumes after it

  bool ended() const {
    return state == JobState::kSucceeded || state == JobState::kFailed ||
           state == JobState::kCancelled;
  }
};

// Jobs, kept across restarts. Thread-safe.
class JobQueue {
 public:
  virtual ~JobQueue() = default;

  // Checks what can be checked before starting, then queues. `request_id`, where not empty, makes a
  // repeated submit return the first one's job.
  // INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED (outside the roots), FAILED_PRECONDITION (too
  // little disk, expert tensors missing), ABORTED (another job writes the same destination).
  virtual absl::StatusOr<Job> Submit(const ConvertSpec& spec, absl::string_view request_id) = 0;
  virtual absl::StatusOr<Job> Get(absl::string_view id) = 0;
  // Newest first, at most `limit`.
  virtual absl::StatusOr<std::vector<Job>> List(int limit) = 0;
  // Calls back with each change until the job ends or the callback says false; returns the last
  // state seen. `after_version` -1: from the current state on.
  virtual absl::StatusOr<Job> Watch(absl::string_view id, int64_t after_version,
                                    const Cancellation* cancellation,
                                    const std::function<bool(const Job&)>& on_change) = 0;
  // Stops the job and removes its partial output. FAILED_PRECONDITION: it has ended.
  virtual absl::StatusOr<Job> Cancel(absl::string_view id) = 0;
};

}  // namespace odmoe
