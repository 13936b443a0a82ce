// A file of an output read as if it had been written.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "converter/output/output_plan.h"
#include "services/core/io/file.h"

namespace odmoe {

// `file` and what it refers to outlive the result, which is thread-safe. Reads of parts that are
// copied read their sources; a part that is made is made whole for each read that touches it, so it
// should be small. `path` names it in messages.
std::unique_ptr<RandomAccessFile> OpenPlannedFile(const OutputFile& file, std::string path);

}  // namespace odmoe
