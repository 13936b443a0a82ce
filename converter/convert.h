// Conversion of model files, as a job runs it: plan, refuse what cannot work, then run.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/core/base/cancellation.h"
#include "services/core/io/file.h"

namespace odmoe {

// What to convert. A source is a Hugging Face directory or a GGUF file; a destination that ends in
// ".gguf" is a GGUF file and any other a model directory.
struct ConvertOptions {
  std::string source;
  std::string destination;
  std::string outtype = "auto";  // f32, f16, bf16, q8_0, auto; a GGUF source keeps its bytes
  std::string pre_tokenizer;      // names it where the checkpoint's regexes are not known; else empty
  FileSystem* file_system = nullptr;  // null: PosixFileSystem()
};

// How far a conversion is. `done_bytes` counts this step's output.
struct ConvertProgress {
  std::string step;  // "convert" (Hugging Face to GGUF), "split" (GGUF to model directory)
  int step_number = 0;  // from 1
  int step_count = 0;
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;
  std::string item;  // the tensor or expert at hand
};

// What a conversion will do, known from the headers alone.
struct ConvertPlan {
  ConvertOptions options;
  std::string architecture;          // "deepseek2"
  std::vector<std::string> steps;    // "convert", "split"
  std::vector<uint64_t> step_bytes;  // each step's output
  uint64_t disk_bytes = 0;           // free space needed at the destination, at its peak
};

// Reads the source's headers and checks that the conversion can work: known architecture, every
// tensor present with its shape, disk space.
// NOT_FOUND: no such source, or expert tensors missing (names looked for, and the nearest found).
// INVALID_ARGUMENT: neither a Hugging Face directory nor a GGUF file; unknown architecture or
// outtype. FAILED_PRECONDITION: too little disk, with the numbers. DATA_LOSS: a corrupt file.
absl::StatusOr<ConvertPlan> PlanConversion(const ConvertOptions& options);

// Carries a plan out. On failure or cancellation nothing readable as complete is left, and no
// partial files. CANCELLED: asked to stop; noticed within one tensor or expert's chunk.
absl::Status RunConversion(const ConvertPlan& plan, const Cancellation* cancellation,
                           const std::function<void(const ConvertProgress&)>& on_progress);

}  // namespace odmoe
