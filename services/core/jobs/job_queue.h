// What a client sees of the conversion service: jobs on model files, here or on another host.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/core/base/cancellation.h"

namespace odmoe {

// Turn the Hugging Face directory or GGUF file `source` into `destination`, a GGUF file where it
// ends in ".gguf" and else a model directory. Mirrors ConvertOptions, which says what each field
// does.
struct ConvertSpec {
  std::string source;
  std::string destination;
  std::string outtype = "auto";       // f32, f16, bf16, q8_0, auto; a GGUF source keeps its bytes
  std::string pre_tokenizer;          // or ""
  std::string tensor_map;             // a JSON file, or ""
  std::vector<std::string> metadata;  // each "KEY=VALUE" or a file
  std::string base_model;             // of a LoRA adapter: a Hugging Face directory, or ""
  bool vocab_only = false;
  int64_t pad_vocab = 0;         // 0: none
  uint64_t split_max_bytes = 0;  // 0: one file
  int32_t concurrency = 0;       // 0: as many threads as cores
  // Drop what another conversion left unfinished at the destination, which else is an error. What
  // this one left is gone on with all the same, so that a job survives its process as ever.
  bool restart = false;

  bool operator==(const ConvertSpec&) const = default;
};

// Put the model directory `source` together again as the GGUF file `destination`. Mirrors
// MergeOptions.
struct MergeSpec {
  std::string source;
  std::string destination;
  bool verify = true;       // compare every hash before
  int32_t concurrency = 0;  // 0: as many threads as cores
  bool restart = false;     // as ConvertSpec's

  bool operator==(const MergeSpec&) const = default;
};

// Check every byte of the model directory, GGUF or safetensors file or checkpoint `source`; damage
// fails the step. Mirrors VerifyOptions.
struct VerifySpec {
  std::string source;
  int32_t concurrency = 0;  // 0: as many threads as cores

  bool operator==(const VerifySpec&) const = default;
};

// Measure the perplexity of the model directory `model` on the text file `text`, and its divergence
// from `base_model`. Mirrors EvaluateTextOptions.
struct EvaluateSpec {
  std::string model;
  std::string text;
  std::string base_model;      // a model directory, or ""
  int32_t chunk_tokens = 512;  // 8 or more
  int64_t max_chunks = 0;      // 0: as many as the text has

  bool operator==(const EvaluateSpec&) const = default;
};

// Quantize `source`, a GGUF file, model directory or Hugging Face directory, to each of `types`.
// Mirrors QuantizeOptions and MixOptions, which say what each field does; then try the models and
// measure them.
struct QuantizeSpec {
  std::string source;
  std::string destination;         // with `batch` a folder of models, else one
  std::vector<std::string> types;  // "q4_k_m"
  bool batch = false;
  bool directories = false;  // of a batch: model directories, not GGUF files
  bool pure = false;
  bool leave_output_tensor = false;
  bool allow_requantize = false;
  bool force_ternary = false;
  std::string output_tensor_type;         // or ""
  std::string token_embedding_type;       // or ""
  std::vector<std::string> tensor_types;  // each "REGEX=FORMAT"
  std::string importance;                 // an importance matrix's file, or ""
  bool keep_split = false;
  uint64_t split_max_bytes = 0;  // 0: one file
  int32_t concurrency = 0;       // 0: as many threads as cores
  // Each model of a batch has to continue a short text before it counts as done. A GGUF file is
  // made a model directory for that, beside it and for the time being.
  bool skip_trial = false;
  std::string text;        // a file to measure each model on; or "": none is measured
  std::string base_model;  // a model directory that they are compared with then, or ""

  bool operator==(const QuantizeSpec&) const = default;
};

using StepSpec = std::variant<ConvertSpec, MergeSpec, VerifySpec, EvaluateSpec, QuantizeSpec>;

// Steps are run one after the other; one may read what an earlier one makes.
struct JobSpec {
  static constexpr size_t kMaxSteps = 32;
  static constexpr int32_t kMaxPriority = 1000;

  std::vector<StepSpec> steps;
  // -kMaxPriority to kMaxPriority. Higher ones start first, equal ones in order of submission; a
  // job that runs is never stopped for another.
  int32_t priority = 0;

  bool operator==(const JobSpec&) const = default;
};

enum class JobState { kQueued, kRunning, kSucceeded, kFailed, kCancelled, kPaused };
enum class StepState { kQueued, kRunning, kDone, kFailed, kSkipped };

// How far a step is. A step that goes through its data more than once has phases.
struct JobProgress {
  std::string phase;         // "convert", "split"
  int32_t phase_number = 0;  // from 1; 0: nothing known yet
  int32_t phase_count = 0;
  uint64_t done_bytes = 0;  // of this phase's output
  uint64_t total_bytes = 0;
  double bytes_per_second = 0.0;
  std::optional<absl::Duration> eta;  // for the whole step
  std::string item;                   // the tensor or expert at hand
};

struct StepResult {
  uint64_t bytes = 0;  // of the output, all its files; of a verification, bytes checked
  std::string digest;  // of a model directory's experts, of GGUF files' bytes; or ""
  // Of an evaluation "perplexity", "perplexity_error", "tokens" (scored), "chunks" and
  // "tokens_per_second", with a base model also "base_perplexity", "mean_kld", "median_kld",
  // "kld_99", "max_kld", "same_top" and "rms_delta_p"; of a verification "experts", "tensors" and
  // "hashes", how many of each were compared. Of a quantization, "TYPE.NAME" for each type:
  // "bytes", "bits_per_weight", of those tried "generated_per_second", and of those measured an
  // evaluation's.
  std::map<std::string, double> metrics;
};

struct JobStep {
  StepState state = StepState::kQueued;
  JobProgress progress;
  absl::Time started = absl::InfinitePast();  // InfinitePast where it has not happened
  absl::Time finished = absl::InfinitePast();
  StepResult result;  // once done
};

struct Job {
  std::string id;
  JobSpec spec;
  std::vector<JobStep> steps;  // as in `spec`
  JobState state = JobState::kQueued;
  std::string error;  // why it failed
  absl::StatusCode error_code = absl::StatusCode::kOk;
  // InfinitePast where it has not happened.
  absl::Time created = absl::InfinitePast();
  absl::Time started = absl::InfinitePast();
  absl::Time finished = absl::InfinitePast();
  int64_t version = 0;  // grows with every change; a watch resumes after it

  bool ended() const {
    return state == JobState::kSucceeded || state == JobState::kFailed ||
           state == JobState::kCancelled;
  }
};

// The path a step writes, or "".
const std::string& DestinationOf(const StepSpec& step);
// The paths a step reads, its main one first.
std::vector<std::string> SourcesOf(const StepSpec& step);
// "convert", "merge", "verify", "evaluate", "quantize".
std::string KindOf(const StepSpec& step);

struct WatchOptions {
  int64_t after_version = -1;  // only changes after it; -1: from the current state on
  const Cancellation* cancellation = nullptr;
  // The connection broke and is tried again; told once a break. Never called by a local queue.
  std::function<void(const absl::Status&)> on_interrupted = nullptr;
};

// Jobs, kept across restarts. Thread-safe. Calls on one job: NOT_FOUND, no such job.
class JobQueue {
 public:
  virtual ~JobQueue() = default;

  // Checks what can be checked before starting, then queues. `request_id`, where not empty, makes a
  // repeated submit return the first one's job.
  // INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED (outside the roots), FAILED_PRECONDITION (too
  // little disk, expert tensors missing), ABORTED (a job that has not ended writes a path this one
  // uses, or the other way round), ALREADY_EXISTS (the request id was another job's),
  // UNIMPLEMENTED (a kind of step that this queue cannot run).
  virtual absl::StatusOr<Job> Submit(const JobSpec& spec, absl::string_view request_id) = 0;
  virtual absl::StatusOr<Job> Get(absl::string_view id) = 0;
  // Newest first, at most `limit`.
  virtual absl::StatusOr<std::vector<Job>> List(int limit) = 0;
  // Calls back with each change until the job ends or the callback says false; returns the last
  // state seen.
  virtual absl::StatusOr<Job> Watch(absl::string_view id, const WatchOptions& options,
                                    const std::function<bool(const Job&)>& on_change) = 0;
  // Stops the job and removes its partial output; steps that are done stay done.
  // FAILED_PRECONDITION: it has ended.
  virtual absl::StatusOr<Job> Cancel(absl::string_view id) = 0;
  // Stops the job and keeps its partial output, for Resume to go on from; no change where it is
  // paused. FAILED_PRECONDITION: it has ended, or is being cancelled.
  virtual absl::StatusOr<Job> Pause(absl::string_view id) = 0;
  // Back to the queue. FAILED_PRECONDITION: it is neither paused nor about to be.
  virtual absl::StatusOr<Job> Resume(absl::string_view id) = 0;
  // Queues a failed or cancelled job again, from its first step that is not done. ABORTED: another
  // job uses its paths by now. FAILED_PRECONDITION: it did not fail.
  virtual absl::StatusOr<Job> Retry(absl::string_view id) = 0;
  // Forgets a job that has ended; its output stays. FAILED_PRECONDITION: it has not ended.
  virtual absl::Status Delete(absl::string_view id) = 0;
};

}  // namespace odmoe
