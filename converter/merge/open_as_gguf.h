// A model in any of our forms, read as GGUF.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/io/file.h"

namespace odmoe {

// Opens a GGUF file, a split one by any of its shards, or a model directory as the file it would merge
// to, of which nothing is written: reads go to the directory's files. `fs` outlives the model.
// NOT_FOUND: nothing there, or not a complete model directory. Otherwise as GgufModel::Open and
// PlanMerge.
absl::StatusOr<std::unique_ptr<GgufModel>> OpenAsGguf(FileSystem& fs, const std::string& path);

}  // namespace odmoe
