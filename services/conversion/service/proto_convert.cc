#include "services/conversion/service/proto_convert.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;

constexpr size_t kMaxPathBytes = 4096;
constexpr size_t kMaxOuttypeBytes = 32;
constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxJobIdBytes = 64;
constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;

// protobuf's bounds of Timestamp and Duration.
constexpr int64_t kMaxTimestampSeconds = 253402300799;
constexpr int64_t kMaxDurationSeconds = 315576000000;

absl::Status CheckSize(const std::string& field, const std::string& value, size_t limit) {
  if (value.size() <= limit) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("has ", value.size(), " bytes, at most ", limit,
                                          " are allowed"));
}

google::protobuf::Timestamp TimestampOf(absl::Time time) {
  const int64_t micros =
      std::clamp<int64_t>(absl::ToUnixMicros(time), 0, kMaxTimestampSeconds * 1'000'000);
  return google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(micros);
}

google::protobuf::Duration DurationOf(absl::Duration duration) {
  const int64_t micros = std::clamp<int64_t>(absl::ToInt64Microseconds(duration), 0,
                                             kMaxDurationSeconds * 1'000'000);
  return google::protobuf::util::TimeUtil::MicrosecondsToDuration(micros);
}

int64_t Signed(uint64_t bytes) {
  return int64_t(std::min<uint64_t>(bytes, std::numeric_limits<int64_t>::max()));
}

void FillProgress(const JobProgress& from, v1::JobProgress& to) {
  to.set_step(ReplaceInvalidUtf8(from.step));
  to.set_step_number(from.step_number);
  to.set_step_count(from.step_count);
  to.set_done_bytes(Signed(from.done_bytes));
  to.set_total_bytes(Signed(from.total_bytes));
  to.set_bytes_per_second(from.bytes_per_second);
  if (from.eta) *to.mutable_eta() = DurationOf(*from.eta);
  to.set_item(ReplaceInvalidUtf8(from.item));
}

}  // namespace

v1::JobState ToProto(JobState state) {
  switch (state) {
    case JobState::kQueued: return v1::JOB_STATE_QUEUED;
    case JobState::kRunning: return v1::JOB_STATE_RUNNING;
    case JobState::kSucceeded: return v1::JOB_STATE_SUCCEEDED;
    case JobState::kFailed: return v1::JOB_STATE_FAILED;
    case JobState::kCancelled: return v1::JOB_STATE_CANCELLED;
  }
  return v1::JOB_STATE_UNSPECIFIED;
}

v1::Job ToProto(const Job& job) {
  v1::Job message;
  message.set_job_id(job.id);
  v1::ConvertSpec& convert = *message.mutable_spec()->mutable_convert();
  convert.set_source_path(ReplaceInvalidUtf8(job.spec.source));
  convert.set_destination_path(ReplaceInvalidUtf8(job.spec.destination));
  convert.set_outtype(ReplaceInvalidUtf8(job.spec.outtype));
  message.set_state(ToProto(job.state));
  FillProgress(job.progress, *message.mutable_progress());
  message.set_error_code(int(job.error_code));
  message.set_error_message(ReplaceInvalidUtf8(job.error));
  *message.mutable_create_time() = TimestampOf(job.created);
  if (job.started != absl::InfinitePast()) *message.mutable_start_time() = TimestampOf(job.started);
  if (job.finished != absl::InfinitePast()) {
    *message.mutable_finish_time() = TimestampOf(job.finished);
  }
  message.set_version(job.version);
  return message;
}

absl::StatusOr<ConvertSpec> FromProto(const v1::JobSpec& spec) {
  if (spec.work_case() != v1::JobSpec::kConvert) {
    return InvalidField("spec.work", "is missing, or of a kind this service does not know");
  }
  const v1::ConvertSpec& convert = spec.convert();
  if (convert.source_path().empty()) return InvalidField("spec.convert.source_path", "is empty");
  if (convert.destination_path().empty()) {
    return InvalidField("spec.convert.destination_path", "is empty");
  }
  ODMOE_RETURN_IF_ERROR(
      CheckSize("spec.convert.source_path", convert.source_path(), kMaxPathBytes));
  ODMOE_RETURN_IF_ERROR(
      CheckSize("spec.convert.destination_path", convert.destination_path(), kMaxPathBytes));
  ODMOE_RETURN_IF_ERROR(CheckSize("spec.convert.outtype", convert.outtype(), kMaxOuttypeBytes));
  return ConvertSpec{convert.source_path(), convert.destination_path(),
                     convert.outtype().empty() ? "auto" : convert.outtype()};
}

absl::StatusOr<std::string> CheckJobId(const std::string& job_id) {
  if (job_id.empty()) return InvalidField("job_id", "is empty");
  ODMOE_RETURN_IF_ERROR(CheckSize("job_id", job_id, kMaxJobIdBytes));
  return job_id;
}

absl::StatusOr<std::string> CheckRequestId(const std::string& request_id) {
  ODMOE_RETURN_IF_ERROR(CheckSize("request_id", request_id, kMaxRequestIdBytes));
  return request_id;
}

absl::StatusOr<int> CheckPageSize(int32_t page_size) {
  if (page_size == 0) return kDefaultPageSize;
  if (page_size < 0 || page_size > kMaxPageSize) {
    return InvalidField("page_size",
                        absl::StrCat(page_size, " is not between 0 and ", kMaxPageSize));
  }
  return page_size;
}

absl::StatusOr<int64_t> CheckAfterVersion(const v1::WatchJobRequest& request) {
  if (!request.has_after_version()) return -1;
  if (request.after_version() < 0) {
    return InvalidField("after_version", absl::StrCat(request.after_version(), " is negative"));
  }
  return request.after_version();
}

}  // namespace odmoe
