#include "services/core/codec/job_codec.h"

#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/core/codec/number_codec.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;

constexpr size_t kMaxPathBytes = 4096;
constexpr size_t kMaxNameBytes = 32;        // of an outtype
constexpr size_t kMaxMetadataBytes = 65536;
constexpr int kMaxMetadata = 1000;
constexpr int64_t kMaxPadVocab = 1 << 30;
constexpr int64_t kMaxChunkTokens = 1 << 24;
constexpr int64_t kMaxChunks = int64_t{1} << 31;
constexpr int kMaxTypes = 64;
constexpr int kMaxTensorTypes = 1000;
constexpr size_t kMaxTensorTypeBytes = 1100;
constexpr int32_t kMaxConcurrency = 1024;

// The field of a step being read, for messages: "spec.steps[0].convert.".
class FieldChecker {
 public:
  explicit FieldChecker(std::string prefix) : prefix_(std::move(prefix)) {}

  FieldChecker& Text(const char* field, const std::string& text, size_t limit) {
    if (text.size() > limit) {
      Fail(field, absl::StrCat("has ", text.size(), " bytes, at most ", limit, " are allowed"));
    }
    return *this;
  }
  FieldChecker& Path(const char* field, const std::string& path) {
    if (path.empty()) Fail(field, "is empty");
    return Text(field, path, kMaxPathBytes);
  }
  FieldChecker& Range(const char* field, int64_t value, int64_t most) {
    if (value < 0 || value > most) {
      Fail(field, absl::StrCat(value, " is not between 0 and ", most));
    }
    return *this;
  }
  void Fail(const char* field, absl::string_view description) {
    if (status_.ok()) status_ = InvalidField(prefix_ + field, description);
  }
  const absl::Status& status() const { return status_; }

 private:
  const std::string prefix_;
  absl::Status status_;
};

absl::Status Check(const v1::ConvertSpec& message, const std::string& prefix) {
  FieldChecker check(prefix);
  check.Path("source_path", message.source_path())
      .Path("destination_path", message.destination_path())
      .Text("outtype", message.outtype(), kMaxNameBytes)
      .Text("pre_tokenizer", message.pre_tokenizer(), kMaxNameBytes)
      .Text("tensor_map_path", message.tensor_map_path(), kMaxPathBytes)
      .Text("base_model_path", message.base_model_path(), kMaxPathBytes)
      .Range("pad_vocab", message.pad_vocab(), kMaxPadVocab)
      .Range("split_max_bytes", message.split_max_bytes(), std::numeric_limits<int64_t>::max())
      .Range("concurrency", message.concurrency(), kMaxConcurrency);
  if (message.metadata_size() > kMaxMetadata) {
    check.Fail("metadata", absl::StrCat("has ", message.metadata_size(), " entries, at most ",
                                        kMaxMetadata, " are allowed"));
  }
  for (const std::string& entry : message.metadata()) {
    if (entry.empty()) check.Fail("metadata", "has an empty entry");
    check.Text("metadata", entry, kMaxMetadataBytes);
  }
  return check.status();
}

void Fill(const ConvertSpec& from, v1::ConvertSpec& to) {
  to.set_source_path(ReplaceInvalidUtf8(from.source));
  to.set_destination_path(ReplaceInvalidUtf8(from.destination));
  to.set_outtype(ReplaceInvalidUtf8(from.outtype));
  to.set_pre_tokenizer(ReplaceInvalidUtf8(from.pre_tokenizer));
  to.set_tensor_map_path(ReplaceInvalidUtf8(from.tensor_map));
  for (const std::string& entry : from.metadata) to.add_metadata(ReplaceInvalidUtf8(entry));
  to.set_base_model_path(ReplaceInvalidUtf8(from.base_model));
  to.set_vocab_only(from.vocab_only);
  to.set_pad_vocab(from.pad_vocab);
  to.set_split_max_bytes(SignedOf(from.split_max_bytes));
  to.set_concurrency(from.concurrency);
  to.set_restart(from.restart);
}

ConvertSpec Read(const v1::ConvertSpec& message) {
  ConvertSpec spec;
  spec.source = message.source_path();
  spec.destination = message.destination_path();
  if (!message.outtype().empty()) spec.outtype = message.outtype();
  spec.pre_tokenizer = message.pre_tokenizer();
  spec.tensor_map = message.tensor_map_path();
  spec.metadata.assign(message.metadata().begin(), message.metadata().end());
  spec.base_model = message.base_model_path();
  spec.vocab_only = message.vocab_only();
  spec.pad_vocab = message.pad_vocab();
  spec.split_max_bytes = UnsignedOf(message.split_max_bytes());
  spec.concurrency = message.concurrency();
  spec.restart = message.restart();
  return spec;
}

absl::Status Check(const v1::QuantizeSpec& message, const std::string& prefix) {
  FieldChecker check(prefix);
  check.Path("source_path", message.source_path())
      .Path("destination_path", message.destination_path())
      .Text("output_tensor_type", message.output_tensor_type(), kMaxNameBytes)
      .Text("token_embedding_type", message.token_embedding_type(), kMaxNameBytes)
      .Text("importance_path", message.importance_path(), kMaxPathBytes)
      .Text("text_path", message.text_path(), kMaxPathBytes)
      .Text("base_model_path", message.base_model_path(), kMaxPathBytes)
      .Range("split_max_bytes", message.split_max_bytes(), std::numeric_limits<int64_t>::max())
      .Range("concurrency", message.concurrency(), kMaxConcurrency);
  if (message.types().empty() || message.types_size() > kMaxTypes) {
    check.Fail("types", absl::StrCat("has ", message.types_size(), " entries, expected 1 to ",
                                     kMaxTypes));
  }
  for (const std::string& type : message.types()) check.Text("types", type, kMaxNameBytes);
  if (message.tensor_types_size() > kMaxTensorTypes) {
    check.Fail("tensor_types", absl::StrCat("has ", message.tensor_types_size(),
                                            " entries, at most ", kMaxTensorTypes, " are allowed"));
  }
  for (const std::string& rule : message.tensor_types()) {
    check.Text("tensor_types", rule, kMaxTensorTypeBytes);
  }
  return check.status();
}

void Fill(const QuantizeSpec& from, v1::QuantizeSpec& to) {
  to.set_source_path(ReplaceInvalidUtf8(from.source));
  to.set_destination_path(ReplaceInvalidUtf8(from.destination));
  for (const std::string& type : from.types) to.add_types(ReplaceInvalidUtf8(type));
  to.set_batch(from.batch);
  to.set_directories(from.directories);
  to.set_pure(from.pure);
  to.set_leave_output_tensor(from.leave_output_tensor);
  to.set_allow_requantize(from.allow_requantize);
  to.set_force_ternary(from.force_ternary);
  to.set_output_tensor_type(ReplaceInvalidUtf8(from.output_tensor_type));
  to.set_token_embedding_type(ReplaceInvalidUtf8(from.token_embedding_type));
  for (const std::string& rule : from.tensor_types) to.add_tensor_types(ReplaceInvalidUtf8(rule));
  to.set_importance_path(ReplaceInvalidUtf8(from.importance));
  to.set_keep_split(from.keep_split);
  to.set_split_max_bytes(SignedOf(from.split_max_bytes));
  to.set_concurrency(from.concurrency);
  to.set_skip_trial(from.skip_trial);
  to.set_text_path(ReplaceInvalidUtf8(from.text));
  to.set_base_model_path(ReplaceInvalidUtf8(from.base_model));
}

QuantizeSpec Read(const v1::QuantizeSpec& message) {
  QuantizeSpec spec;
  spec.source = message.source_path();
  spec.destination = message.destination_path();
  spec.types.assign(message.types().begin(), message.types().end());
  spec.batch = message.batch();
  spec.directories = message.directories();
  spec.pure = message.pure();
  spec.leave_output_tensor = message.leave_output_tensor();
  spec.allow_requantize = message.allow_requantize();
  spec.force_ternary = message.force_ternary();
  spec.output_tensor_type = message.output_tensor_type();
  spec.token_embedding_type = message.token_embedding_type();
  spec.tensor_types.assign(message.tensor_types().begin(), message.tensor_types().end());
  spec.importance = message.importance_path();
  spec.keep_split = message.keep_split();
  spec.split_max_bytes = UnsignedOf(message.split_max_bytes());
  spec.concurrency = message.concurrency();
  spec.skip_trial = message.skip_trial();
  spec.text = message.text_path();
  spec.base_model = message.base_model_path();
  return spec;
}

void Fill(const EvaluateSpec& from, v1::EvaluateSpec& to) {
  to.set_model_path(ReplaceInvalidUtf8(from.model));
  to.set_text_path(ReplaceInvalidUtf8(from.text));
  to.set_base_model_path(ReplaceInvalidUtf8(from.base_model));
  to.set_chunk_tokens(from.chunk_tokens);
  to.set_max_chunks(from.max_chunks);
}

void Fill(const MergeSpec& from, v1::MergeSpec& to) {
  to.set_source_path(ReplaceInvalidUtf8(from.source));
  to.set_destination_path(ReplaceInvalidUtf8(from.destination));
  to.set_skip_verify(!from.verify);
  to.set_concurrency(from.concurrency);
  to.set_restart(from.restart);
}

void Fill(const VerifySpec& from, v1::VerifySpec& to) {
  to.set_source_path(ReplaceInvalidUtf8(from.source));
  to.set_concurrency(from.concurrency);
}

absl::StatusOr<StepSpec> Read(const v1::StepSpec& message, const std::string& prefix) {
  switch (message.work_case()) {
    case v1::StepSpec::kConvert: {
      ODMOE_RETURN_IF_ERROR(Check(message.convert(), absl::StrCat(prefix, ".convert.")));
      return Read(message.convert());
    }
    case v1::StepSpec::kEvaluate: {
      const v1::EvaluateSpec& evaluate = message.evaluate();
      FieldChecker check(absl::StrCat(prefix, ".evaluate."));
      check.Path("model_path", evaluate.model_path())
          .Path("text_path", evaluate.text_path())
          .Text("base_model_path", evaluate.base_model_path(), kMaxPathBytes)
          .Range("chunk_tokens", evaluate.chunk_tokens(), kMaxChunkTokens)
          .Range("max_chunks", evaluate.max_chunks(), kMaxChunks);
      ODMOE_RETURN_IF_ERROR(check.status());
      EvaluateSpec spec = {evaluate.model_path(), evaluate.text_path(),
                           evaluate.base_model_path()};
      if (evaluate.chunk_tokens() != 0) spec.chunk_tokens = evaluate.chunk_tokens();
      spec.max_chunks = evaluate.max_chunks();
      return spec;
    }
    case v1::StepSpec::kMerge: {
      const v1::MergeSpec& merge = message.merge();
      FieldChecker check(absl::StrCat(prefix, ".merge."));
      check.Path("source_path", merge.source_path())
          .Path("destination_path", merge.destination_path())
          .Range("concurrency", merge.concurrency(), kMaxConcurrency);
      ODMOE_RETURN_IF_ERROR(check.status());
      return MergeSpec{merge.source_path(), merge.destination_path(), !merge.skip_verify(),
                       merge.concurrency(), merge.restart()};
    }
    case v1::StepSpec::kVerify: {
      FieldChecker check(absl::StrCat(prefix, ".verify."));
      check.Path("source_path", message.verify().source_path())
          .Range("concurrency", message.verify().concurrency(), kMaxConcurrency);
      ODMOE_RETURN_IF_ERROR(check.status());
      return VerifySpec{message.verify().source_path(), message.verify().concurrency()};
    }
    case v1::StepSpec::kQuantize: {
      ODMOE_RETURN_IF_ERROR(Check(message.quantize(), absl::StrCat(prefix, ".quantize.")));
      return Read(message.quantize());
    }
    case v1::StepSpec::WORK_NOT_SET: break;
  }
  return InvalidField(absl::StrCat(prefix, ".work"),
                      "is missing, or of a kind that is not known here");
}

void Fill(const JobProgress& from, v1::JobProgress& to) {
  to.set_phase(ReplaceInvalidUtf8(from.phase));
  to.set_phase_number(from.phase_number);
  to.set_phase_count(from.phase_count);
  to.set_done_bytes(SignedOf(from.done_bytes));
  to.set_total_bytes(SignedOf(from.total_bytes));
  to.set_bytes_per_second(from.bytes_per_second);
  if (from.eta) *to.mutable_eta() = DurationOf(*from.eta);
  to.set_item(ReplaceInvalidUtf8(from.item));
}

JobProgress Read(const v1::JobProgress& message) {
  JobProgress progress;
  progress.phase = message.phase();
  progress.phase_number = message.phase_number();
  progress.phase_count = message.phase_count();
  progress.done_bytes = UnsignedOf(message.done_bytes());
  progress.total_bytes = UnsignedOf(message.total_bytes());
  progress.bytes_per_second = message.bytes_per_second();
  if (message.has_eta()) progress.eta = DurationOf(message.eta());
  progress.item = message.item();
  return progress;
}

void Fill(const JobStep& from, v1::JobStep& to) {
  to.set_state(v1::StepState(int(from.state) + 1));
  Fill(from.progress, *to.mutable_progress());
  if (from.started != absl::InfinitePast()) *to.mutable_start_time() = TimestampOf(from.started);
  if (from.finished != absl::InfinitePast()) *to.mutable_finish_time() = TimestampOf(from.finished);
  if (from.state != StepState::kDone) return;
  v1::StepResult& result = *to.mutable_result();
  result.set_output_bytes(SignedOf(from.result.bytes));
  result.set_digest(ReplaceInvalidUtf8(from.result.digest));
  result.mutable_metrics()->insert(from.result.metrics.begin(), from.result.metrics.end());
}

absl::Status NewerService(absl::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat("the service answered with ", what,
                   ", which this client does not know; a newer one is needed"));
}

absl::StatusOr<JobStep> Read(const v1::JobStep& message) {
  JobStep step;
  if (message.state() < v1::STEP_STATE_QUEUED || message.state() > v1::STEP_STATE_SKIPPED) {
    return NewerService(absl::StrCat("step state ", int(message.state())));
  }
  step.state = StepState(int(message.state()) - 1);
  step.progress = Read(message.progress());
  step.started = TimeOf(message.has_start_time(), message.start_time());
  step.finished = TimeOf(message.has_finish_time(), message.finish_time());
  step.result.bytes = UnsignedOf(message.result().output_bytes());
  step.result.digest = message.result().digest();
  step.result.metrics.insert(message.result().metrics().begin(), message.result().metrics().end());
  return step;
}

static_assert(int(StepState::kSkipped) + 1 == v1::STEP_STATE_SKIPPED);
static_assert(int(JobState::kQueued) + 1 == v1::JOB_STATE_QUEUED &&
              int(JobState::kCancelled) + 1 == v1::JOB_STATE_CANCELLED &&
              int(JobState::kPaused) + 1 == v1::JOB_STATE_PAUSED);

}  // namespace

v1::JobSpec ToProto(const JobSpec& spec) {
  v1::JobSpec message;
  for (const StepSpec& step : spec.steps) {
    v1::StepSpec& to = *message.add_steps();
    if (const auto* convert = std::get_if<ConvertSpec>(&step)) {
      Fill(*convert, *to.mutable_convert());
    } else if (const auto* merge = std::get_if<MergeSpec>(&step)) {
      Fill(*merge, *to.mutable_merge());
    } else if (const auto* verify = std::get_if<VerifySpec>(&step)) {
      Fill(*verify, *to.mutable_verify());
    } else if (const auto* quantize = std::get_if<QuantizeSpec>(&step)) {
      Fill(*quantize, *to.mutable_quantize());
    } else {
      Fill(std::get<EvaluateSpec>(step), *to.mutable_evaluate());
    }
  }
  message.set_priority(spec.priority);
  return message;
}

v1::Job ToProto(const Job& job) {
  v1::Job message;
  message.set_job_id(job.id);
  *message.mutable_spec() = ToProto(job.spec);
  message.set_state(v1::JobState(int(job.state) + 1));
  message.set_error_code(int(job.error_code));
  message.set_error_message(ReplaceInvalidUtf8(job.error));
  *message.mutable_create_time() = TimestampOf(job.created);
  if (job.started != absl::InfinitePast()) *message.mutable_start_time() = TimestampOf(job.started);
  if (job.finished != absl::InfinitePast()) {
    *message.mutable_finish_time() = TimestampOf(job.finished);
  }
  message.set_version(job.version);
  for (const JobStep& step : job.steps) Fill(step, *message.add_steps());
  return message;
}

absl::StatusOr<JobSpec> FromProto(const v1::JobSpec& message) {
  if (message.steps().empty() || size_t(message.steps_size()) > JobSpec::kMaxSteps) {
    return InvalidField("spec.steps", absl::StrCat("has ", message.steps_size(),
                                                   " entries, expected 1 to ",
                                                   JobSpec::kMaxSteps));
  }
  JobSpec spec;
  for (int i = 0; i < message.steps_size(); ++i) {
    ODMOE_ASSIGN_OR_RETURN(spec.steps.emplace_back(),
                           Read(message.steps(i), absl::StrCat("spec.steps[", i, "]")));
  }
  if (message.priority() < -JobSpec::kMaxPriority || message.priority() > JobSpec::kMaxPriority) {
    return InvalidField("spec.priority",
                        absl::StrCat(message.priority(), " is not between -",
                                     JobSpec::kMaxPriority, " and ", JobSpec::kMaxPriority));
  }
  spec.priority = message.priority();
  return spec;
}

absl::StatusOr<Job> FromProto(const v1::Job& message) {
  Job job;
  job.id = message.job_id();
  absl::StatusOr<JobSpec> spec = FromProto(message.spec());
  if (!spec.ok()) return NewerService(spec.status().message());
  job.spec = *std::move(spec);
  if (message.state() < v1::JOB_STATE_QUEUED || message.state() > v1::JOB_STATE_PAUSED) {
    return NewerService(absl::StrCat("job state ", int(message.state())));
  }
  job.state = JobState(int(message.state()) - 1);
  if (size_t(message.steps_size()) != job.spec.steps.size()) {
    return NewerService(absl::StrCat(message.steps_size(), " steps of ", job.spec.steps.size()));
  }
  for (const v1::JobStep& step : message.steps()) {
    ODMOE_ASSIGN_OR_RETURN(job.steps.emplace_back(), Read(step));
  }
  job.error = message.error_message();
  job.error_code = absl::StatusCode(message.error_code());
  job.created = TimeOf(message.has_create_time(), message.create_time());
  job.started = TimeOf(message.has_start_time(), message.start_time());
  job.finished = TimeOf(message.has_finish_time(), message.finish_time());
  job.version = message.version();
  return job;
}

}  // namespace odmoe
