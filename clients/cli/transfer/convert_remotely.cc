#include "clients/cli/transfer/convert_remotely.h"

#include <filesystem>
#include <string>
#include <vector>

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

// A field that names a local file or folder, and what of it is sent into which folder of the
// upload.
struct SentField {
  std::string* field;
  std::string folder;
  std::string local_path;
  bool parent = false;  // the field is to name the folder of what is sent
};

// Each in a folder of its own, as two files may have one name.
std::vector<SentField> SentFieldsOf(ConvertSpec& spec) {
  std::vector<SentField> fields = {{&spec.source, "source", spec.source}};
  if (!spec.tensor_map.empty()) fields.push_back({&spec.tensor_map, "tensor_map", spec.tensor_map});
  if (!spec.base_model.empty()) {
    // All that is read of it; its weights may be a hundred times the adapter's.
    const std::string config = (std::filesystem::path(spec.base_model) / "config.json").string();
    fields.push_back({&spec.base_model, "base_model", config, /*parent=*/true});
  }
  for (size_t i = 0; i < spec.metadata.size(); ++i) {
    if (absl::StrContains(spec.metadata[i], '=')) continue;
    fields.push_back({&spec.metadata[i], absl::StrCat("metadata-", i), spec.metadata[i]});
  }
  return fields;
}

// Uploads what the fields name, and lets them name it where it then is.
absl::Status SendFields(RemoteFiles& remote, const std::string& upload_id,
                        const std::vector<SentField>& fields, const TransferView& view) {
  for (const SentField& sent : fields) {
    ODMOE_ASSIGN_OR_RETURN(
        const TransferResult there,
        UploadTree(remote, upload_id, sent.folder, sent.local_path, view));
    *sent.field = sent.parent ? std::filesystem::path(there.path).parent_path().string()
                              : there.path;
  }
  return absl::OkStatus();
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
  ODMOE_ASSIGN_OR_RETURN(const auto remote, ConnectRemoteFiles(endpoint));
  ODMOE_ASSIGN_OR_RETURN(const auto queue, ConnectJobQueue(endpoint));
  const std::vector<SentField> fields = SentFieldsOf(spec);
  std::vector<std::string> local_paths;
  for (const SentField& sent : fields) local_paths.push_back(sent.local_path);
  ODMOE_ASSIGN_OR_RETURN(const std::string upload_id, UploadIdOf(local_paths));
  ODMOE_RETURN_IF_ERROR(SendFields(*remote, upload_id, fields, view));
  ODMOE_ASSIGN_OR_RETURN(const Upload upload, remote->GetUpload(upload_id));
  const std::string local_destination = spec.destination;
  std::filesystem::path name = std::filesystem::path(local_destination).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
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
