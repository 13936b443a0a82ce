// Carries out an OutputPlan: several workers, bounded memory, nothing lost when it is interrupted.
//
// States of an output, in order:
//   writing   files are `<path>.partial`; the journal says which items are in them. What was at the
//             destination before is untouched.
//   naming    all items are on the disk. The old completing file goes, the partial files get their
//             names, the completing file last.
//   complete  the completing file has its name; the journal is removed.
// Only the last state shows anything that reads as complete, apart from what was there before.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/output/output_plan.h"
#include "converter/progress.h"
#include "services/core/io/file.h"

namespace odmoe {

struct WriteOptions {
  int concurrency = 0;   // workers; 0: one a core, at most kMaxDefaultWorkers
  bool restart = false;  // drop the unfinished output of an earlier run, of whatever conversion
};

// More than these do not make a disk faster, and each takes some MiB.
inline constexpr int kMaxDefaultWorkers = 16;
inline constexpr int kMaxWorkers = 64;

// What an earlier run left of this very output.
struct UnfinishedOutput {
  uint64_t done_bytes = 0;  // of the items: what a run would not make again
  uint64_t disk_bytes = 0;  // taken by its partial files
};

// Both 0 where there is nothing to go on with. FAILED_PRECONDITION: the unfinished output is another
// conversion's; the message tells what to do.
absl::StatusOr<UnfinishedOutput> FindUnfinishedOutput(const OutputPlan& plan, FileSystem& fs);

// Writes the output, or goes on with what an earlier run of the same plan (by its fingerprint) left:
// every item whose record is in the journal stays, after a check of its hash where it may not have
// reached the disk. The bytes are the same for any number of workers and interruptions.
//
// A failure leaves partial files and journal, to be gone on with. CANCELLED: asked to stop; they are
// removed, unless Cancellation::CancelAndKeepWork asked. RESOURCE_EXHAUSTED: the disk is full; the
// message has the bytes missing and free. FAILED_PRECONDITION: another conversion's unfinished
// output is there and `restart` is not set, or another process is writing it. Otherwise the error of
// the source, of a part's `make`, or of the file system.
absl::Status WriteOutput(const OutputPlan& plan, FileSystem& fs, const WriteOptions& options,
                         StepProgress& progress);

// Removes partial files, journal and folders that are empty then: what a run that is given up leaves.
void RemoveUnfinishedOutput(const OutputPlan& plan, FileSystem& fs);

}  // namespace odmoe
