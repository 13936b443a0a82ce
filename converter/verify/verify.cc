#include "converter/verify/verify.h"

#include <utility>

#include "converter/progress.h"
#include "converter/verify/check_items.h"
#include "converter/verify/gather_items.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr char kVerifyStep[] = "verify";

void AddDamage(Damage damage, VerifyReport& report) {
  ++report.damage_count;
  if (report.damage_count <= kMaxDamages) report.damages.push_back(std::move(damage));
}

}  // namespace

absl::StatusOr<VerifyReport> VerifyModel(
    const VerifyOptions& options, const Cancellation* cancellation,
    const std::function<void(const ConvertProgress&)>& on_progress) {
  FileSystem& fs = options.file_system != nullptr ? *options.file_system : PosixFileSystem();
  ODMOE_ASSIGN_OR_RETURN(GatheredModel model, GatherItems(fs, options.path));
  VerifyReport report{.kind = model.kind, .expert_count = model.expert_count};
  report.tensor_count = static_cast<int64_t>(model.items.size()) - model.expert_count;
  for (CheckedItem& item : model.items) {
    if (!options.values) {
      for (CheckedExtent& extent : item.extents) extent.dtype.reset();
    }
    report.checked_bytes += item.bytes();
    if (item.xxh3) ++report.hashed_count;
  }
  for (Damage& damage : model.damages) AddDamage(std::move(damage), report);
  StepProgress progress({.step = kVerifyStep,
                         .step_number = 1,
                         .step_count = 1,
                         .total_bytes = report.checked_bytes},
                        cancellation, &on_progress);
  ODMOE_ASSIGN_OR_RETURN(const std::vector<absl::Status> results,
                         CheckItems(model.items, options.concurrency, progress));
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i].ok()) AddDamage({model.items[i].name, results[i]}, report);
  }
  return report;
}

}  // namespace odmoe
