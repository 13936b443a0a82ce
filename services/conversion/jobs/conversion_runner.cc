#include "services/conversion/jobs/conversion_runner.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "services/conversion/jobs/progress_meter.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr size_t kMaxOuttypeBytes = 32;

// A path the client can use later from another folder and another process.
absl::StatusOr<std::string> Absolute(const std::string& path) {
  std::error_code error;
  std::string result = std::filesystem::absolute(path, error).string();
  if (error) return absl::InvalidArgumentError(error.message());
  return result;
}

// The converter names what it opened; the client knows it by the name it gave.
absl::Status InGivenNames(const absl::Status& status, const NewJob& job) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrReplaceAll(status.message(),
                                          {{job.source_path, job.given.source},
                                           {job.destination_path, job.given.destination}}));
}

}  // namespace

ConversionRunner::ConversionRunner(PathRoots roots, ConversionFunctions functions)
    : roots_(std::move(roots)),
      functions_(std::move(functions)),
      file_system_(roots_.restricted()
                       ? std::make_unique<RootedFileSystem>(PosixFileSystem(), roots_)
                       : nullptr) {}

absl::StatusOr<NewJob> ConversionRunner::Resolve(const ConvertSpec& spec) const {
  if (spec.outtype.size() > kMaxOuttypeBytes) {
    return absl::InvalidArgumentError(absl::StrCat("outtype has ", spec.outtype.size(),
                                                   " bytes, at most ", kMaxOuttypeBytes,
                                                   " are allowed"));
  }
  NewJob job;
  ODMOE_ASSIGN_OR_RETURN(job.source_path, roots_.Resolve(spec.source, "source_path"));
  ODMOE_ASSIGN_OR_RETURN(job.destination_path,
                         roots_.Resolve(spec.destination, "destination_path"));
  if (job.source_path == job.destination_path) {
    return absl::InvalidArgumentError(
        absl::StrCat("source and destination are the same: ", spec.source));
  }
  ODMOE_ASSIGN_OR_RETURN(job.given.source, Absolute(spec.source));
  ODMOE_ASSIGN_OR_RETURN(job.given.destination, Absolute(spec.destination));
  job.given.outtype = spec.outtype.empty() ? "auto" : spec.outtype;
  return job;
}

absl::StatusOr<ConvertPlan> ConversionRunner::Plan(const NewJob& job) const {
  ConvertOptions options;
  options.source = job.source_path;
  options.destination = job.destination_path;
  options.outtype = job.given.outtype;
  options.file_system = file_system_.get();
  absl::StatusOr<ConvertPlan> plan = functions_.plan(options);
  if (!plan.ok()) return InGivenNames(plan.status(), job);
  return plan;
}

absl::Status ConversionRunner::Run(
    const ClaimedJob& job, const Cancellation& cancellation,
    const std::function<void(const JobProgress&)>& on_progress) const {
  // The disk may have changed since the job was submitted: links, files, free space.
  ODMOE_ASSIGN_OR_RETURN(const NewJob now, Resolve(job.job.spec));
  if (now.source_path != job.source_path || now.destination_path != job.destination_path) {
    return absl::PermissionDeniedError("a path leads elsewhere than when the job was submitted");
  }
  ODMOE_ASSIGN_OR_RETURN(const ConvertPlan plan, Plan(now));
  ProgressMeter meter(plan.step_bytes);
  const absl::Status outcome =
      functions_.run(plan, &cancellation, [&](const ConvertProgress& progress) {
        on_progress(meter.Update(progress, absl::Now()));
      });
  return InGivenNames(outcome, now);
}

}  // namespace odmoe
