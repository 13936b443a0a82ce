// The end of an output: files get their names.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "converter/output/journal.h"
#include "converter/output/output_plan.h"
#include "services/core/io/file.h"

namespace odmoe {

// Writes the texts, gives every file its name, the completing one last, and removes the journal.
// All items are on the disk. Can be done again wherever it was interrupted.
absl::Status NameFiles(const OutputPlan& plan, absl::Span<const uint64_t> hashes, FileSystem& fs,
                       Journal& journal);

}  // namespace odmoe
