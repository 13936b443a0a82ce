// Puts a model directory together again as the one GGUF file it was split from, byte for byte. A
// directory made of a split GGUF model gives the file it had been before it was split: its shards'
// tensors in order, without the three split keys.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/convert.h"
#include "converter/output/output_plan.h"
#include "services/core/base/cancellation.h"
#include "services/core/formats/base_files.h"
#include "services/core/io/file.h"

namespace odmoe {

struct MergeOptions {
  std::string directory;
  std::string destination;            // the GGUF file
  bool verify = true;                 // check every hash before anything is written
  int concurrency = 0;                // threads; 0: one a core
  bool restart = false;               // drop what an interrupted merge left
  bool replace_other = false;         // the same, unless that was this very merge
  FileSystem* file_system = nullptr;  // null: PosixFileSystem()
};

struct MergeResult {
  uint64_t bytes = 0;  // of the file
  std::string digest;  // of all its bytes; see WriteOutput
};

// Checks, plans and writes, or goes on with what an interrupted run left (see WriteOutput). Steps:
// "verify", "merge".
// NOT_FOUND: not a complete model directory. DATA_LOSS: damaged; the message has the first damage.
// FAILED_PRECONDITION: too little disk, with the numbers, or another conversion's unfinished output
// is there. CANCELLED. Otherwise as WriteOutput.
absl::StatusOr<MergeResult> MergeModel(
    const MergeOptions& options, const Cancellation* cancellation,
    const std::function<void(const ConvertProgress&)>& on_progress);

// The file laid out, and what its parts refer to.
struct MergePlan {
  OutputPlan output;
  std::unique_ptr<BaseFiles> base;
  std::vector<std::unique_ptr<RandomAccessFile>> experts;
};

// Reads the directory's JSON and headers. NOT_FOUND: not a complete model directory, or a file of
// its base model is missing. DATA_LOSS: what its files say does not fit together.
absl::StatusOr<MergePlan> PlanMerge(FileSystem& fs, const std::string& directory,
                                    const std::string& destination);

}  // namespace odmoe
