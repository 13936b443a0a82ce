#include "converter/merge/merge.h"

#include "absl/strings/str_cat.h"
#include "converter/output/free_disk.h"
#include "converter/output/write_output.h"
#include "converter/progress.h"
#include "converter/verify/verify.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// Damage in would be damage out, with nothing left to tell it by.
absl::Status CheckHashes(const MergeOptions& options, FileSystem& fs,
                         const Cancellation* cancellation,
                         const std::function<void(const ConvertProgress&)>& on_progress) {
  const auto report = VerifyModel(
      {.path = options.directory,
       .values = false,  // weights that cannot be are the model's own, and merge as they are
       .concurrency = options.concurrency,
       .file_system = &fs},
      cancellation, [&](ConvertProgress progress) {
        progress.step_count = 2;
        if (on_progress) on_progress(progress);
      });
  ODMOE_RETURN_IF_ERROR(report.status());
  if (report->intact()) return absl::OkStatus();
  const Damage& first = report->damages[0];
  return absl::DataLossError(absl::StrCat(options.directory, " is damaged (", report->damage_count,
                                          " found): ", first.item, ": ", first.status.message()));
}

// What an earlier run has written need not fit once more.
absl::Status CheckDisk(FileSystem& fs, const OutputPlan& output, EarlierWork earlier) {
  ODMOE_ASSIGN_OR_RETURN(const UnfinishedOutput unfinished,
                         FindUnfinishedOutput(output, fs, earlier));
  return CheckFreeDisk(fs, output.destination, output.files[0].bytes, unfinished.disk_bytes);
}

}  // namespace

absl::StatusOr<MergeResult> MergeModel(
    const MergeOptions& options, const Cancellation* cancellation,
    const std::function<void(const ConvertProgress&)>& on_progress) {
  FileSystem& fs = options.file_system != nullptr ? *options.file_system : PosixFileSystem();
  ODMOE_ASSIGN_OR_RETURN(const MergePlan plan,
                         PlanMerge(fs, options.directory, options.destination));
  const EarlierWork earlier = ToEarlierWork(options.restart, options.replace_other);
  ODMOE_RETURN_IF_ERROR(CheckDisk(fs, plan.output, earlier));
  if (options.verify) {
    ODMOE_RETURN_IF_ERROR(CheckHashes(options, fs, cancellation, on_progress));
  }
  const int steps = options.verify ? 2 : 1;
  StepProgress progress({.step = "merge",
                         .step_number = steps,
                         .step_count = steps,
                         .total_bytes = plan.output.data_bytes()},
                        cancellation, &on_progress);
  MergeResult result{.bytes = plan.output.files[0].bytes};
  ODMOE_RETURN_IF_ERROR(
      WriteOutput(plan.output, fs, {.concurrency = options.concurrency, .earlier = earlier},
                  progress, &result.digest));
  return result;
}

}  // namespace odmoe
