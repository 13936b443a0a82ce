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

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/output/output_plan.h"
#include "converter/progress.h"
#include "services/core/io/file.h"

namespace odmoe {

// What becomes of the unfinished output of an earlier run.
enum class EarlierWork {
  kGoOn,          // gone on with; another conversion's is an error
  kReplaceOther,  // gone on with; another conversion's is dropped
  kDrop,          // dropped, whosever it is
};
EarlierWork ToEarlierWork(bool drop, bool replace_other);

// Stays in a core's second-level cache between being read, hashed and written.
inline constexpr size_t kCopyPieceBytes = size_t{512} << 10;

struct WriteOptions {
  int concurrency = 0;               // workers; 0: one a core, at most kMaxDefaultWorkers
  size_t piece_bytes = kCopyPieceBytes;  // of a copy: read, written and recorded as one
  EarlierWork earlier = EarlierWork::kGoOn;
};

// More than these do not make a disk faster, and each takes some MiB.
inline constexpr int kMaxDefaultWorkers = 16;
inline constexpr int kMaxWorkers = 64;

// What an earlier run left of this very output.
struct UnfinishedOutput {
  uint64_t done_bytes = 0;  // of the items: what a run would not write again
  uint64_t disk_bytes = 0;  // taken by its partial files
};

// Both 0 where there is nothing to go on with. FAILED_PRECONDITION: the unfinished output is
// another conversion's, and `earlier` does not say to drop it; the message tells what to do.
absl::StatusOr<UnfinishedOutput> FindUnfinishedOutput(
    const OutputPlan& plan, FileSystem& fs, EarlierWork earlier = EarlierWork::kGoOn);

// Writes the output, or goes on with what an earlier run of the same plan (by its fingerprint)
// left: what the journal has of an item stays, after a check of its hash where it may not have
// reached the disk. The bytes are the same for any number of workers and interruptions.
//
// Workers read and make in parallel; one at a time writes a piece and records it. So of what a
// killed run has written, at most one piece, of one item, is written again, whatever the number of
// workers.
//
// A failure leaves partial files and journal, to be gone on with. CANCELLED: asked to stop; they
// are removed, unless Cancellation::CancelAndKeepWork asked. RESOURCE_EXHAUSTED: the disk is full;
// the message has the bytes missing and free. FAILED_PRECONDITION: another conversion's unfinished
// output is there and `earlier` does not say to drop it, or another process is writing it.
// Otherwise the error of the source, of a part's `make`, or of the file system.
//
// `digest`, where given, gets 16 hexadecimal digits that name the bytes: XXH3-64 over each file's
// length and header and its items' places and hashes, so that it costs no second read.
absl::Status WriteOutput(const OutputPlan& plan, FileSystem& fs, const WriteOptions& options,
                         StepProgress& progress, std::string* digest = nullptr);

// Removes partial files, journal and folders that are empty then: what a run that is given up
// leaves.
void RemoveUnfinishedOutput(const OutputPlan& plan, FileSystem& fs);

}  // namespace odmoe
