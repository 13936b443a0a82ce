// A planned GGUF file as an output: one file, or shards of it; or not written at all, but read as
// if it were there.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "converter/huggingface/to_gguf.h"
#include "converter/output/output_plan.h"
#include "services/core/io/file.h"

namespace odmoe {

// Writes `gguf` as `path`, or where `split_max_bytes` is not 0 and one file would have more tensor
// data than that, as shards "<path without .gguf>-00001-of-0000N.gguf": each takes tensors as long
// as they fit, at least one; the first has all keys, each its number (split.no, split.count,
// split.tensors.count). `options`: whatever else decides the bytes, for the fingerprint. Refers to
// `gguf`. INVALID_ARGUMENT: more than 65535 shards, which the format cannot count.
absl::StatusOr<OutputPlan> PlanGgufOutput(const GgufPlan& gguf, const std::string& path,
                                          uint64_t split_max_bytes, absl::string_view options);

// The GGUF file itself, without a byte of it on any disk: reads make what they ask for. `path`
// names it in messages. Refers to `gguf`. Thread-safe.
absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenPlannedGguf(const GgufPlan& gguf,
                                                                  std::string path);

// The weight files a checkpoint's tensors lie in.
std::vector<const RandomAccessFile*> WeightFiles(const Checkpoint& checkpoint);

}  // namespace odmoe
