#include "clients/cli/transfer/convert_remotely.h"

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/jobs/job_view.h"
#include "clients/cpp/remote_job_queue.h"
#include "services/conversion/jobs/job_spec_json.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/file_hash.h"

namespace odmoe {
namespace {

absl::Status CheckNoOtherFiles(const ConvertSpec& spec) {
  bool files = !spec.tensor_map.empty() || !spec.base_model.empty();
  for (const std::string& entry : spec.metadata) files = files || !absl::StrContains(entry, '=');
  if (!files) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "--transfer sends the source alone: give no --tensor-map, --base or metadata file, or "
      "upload them yourself (odmoe upload) and submit a job (odmoe jobs submit)");
}

// The same source and options make the same id, so that a repeated command finds its job.
absl::StatusOr<std::string> RequestIdOf(const std::string& upload_id, const ConvertSpec& spec) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, StepSpecToJson(spec));
  return absl::StrFormat("transfer-%s-%016x", upload_id, FileHash::Of(text));
}

absl::StatusOr<Job> RunJob(JobQueue& queue, const ConvertSpec& spec, const std::string& request_id,
                           const TransferView& view) {
  JobSpec job_spec;
  job_spec.steps = {spec};
  ODMOE_ASSIGN_OR_RETURN(Job job, queue.Submit(job_spec, request_id));
  if (!view.quiet) view.console.ErrLine(absl::StrCat("job ", job.id));
  if (job.state == JobState::kFailed || job.state == JobState::kCancelled) {
    ODMOE_RETURN_IF_ERROR(queue.Retry(job.id).status());
  } else if (job.state == JobState::kPaused) {
    ODMOE_RETURN_IF_ERROR(queue.Resume(job.id).status());
  }
  ODMOE_ASSIGN_OR_RETURN(job, ShowJob(queue, job.id, view.console, view.quiet, *view.cancellation));
  ODMOE_RETURN_IF_ERROR(JobOutcome(job));
  return job;
}

}  // namespace

absl::StatusOr<TransferResult> ConvertRemotely(const std::string& endpoint, ConvertSpec spec,
                                               const TransferView& view) {
  ODMOE_RETURN_IF_ERROR(CheckNoOtherFiles(spec));
  ODMOE_ASSIGN_OR_RETURN(const auto remote, ConnectRemoteFiles(endpoint));
  ODMOE_ASSIGN_OR_RETURN(const auto queue, ConnectJobQueue(endpoint));
  ODMOE_ASSIGN_OR_RETURN(const std::string upload_id, UploadIdOf(spec.source));
  ODMOE_ASSIGN_OR_RETURN(const TransferResult source,
                         UploadTree(*remote, upload_id, "source", spec.source, view));
  ODMOE_ASSIGN_OR_RETURN(const Upload upload, remote->GetUpload(upload_id));
  const std::string local_destination = spec.destination;
  std::filesystem::path name = std::filesystem::path(local_destination).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  spec.source = source.path;
  spec.destination = absl::StrCat(upload.directory, "/result/", name.filename().string());
  ODMOE_ASSIGN_OR_RETURN(const std::string request_id, RequestIdOf(upload_id, spec));
  ODMOE_ASSIGN_OR_RETURN(const Job job, RunJob(*queue, spec, request_id, view));
  ODMOE_ASSIGN_OR_RETURN(const TransferResult result,
                         DownloadTree(*remote, spec.destination, local_destination, view));
  // All is here; the next such command is to begin anew.
  ODMOE_RETURN_IF_ERROR(queue->Delete(job.id));
  ODMOE_RETURN_IF_ERROR(remote->DeleteUpload(upload_id));
  return result;
}

}  // namespace odmoe
