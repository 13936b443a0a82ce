// Conversion of model files, as a job runs it: plan, refuse what cannot work, then run.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/base/cancellation.h"
#include "services/core/io/file.h"

namespace odmoe {

// What to convert. A source is a Hugging Face directory, which may be a LoRA adapter's, or a GGUF
// file; a destination that ends in ".gguf" is a GGUF file and any other a model directory.
struct ConvertOptions {
  std::string source;
  std::string destination;
  // f32, f16, bf16, q8_0, auto; tq1_0, tq2_0, i2_s, tl1, tl2 for ternary weights
  // (converter/bitnet). A GGUF source keeps its bytes.
  std::string outtype = "auto";
  std::string pre_tokenizer;  // names it where the checkpoint's regexes are not known; else empty
  bool vocab_only = false;  // a GGUF file of the keys alone, tokenizer and all, from Hugging Face
  // The vocabulary, embedding and head grow together to the next multiple of this: ids without a
  // token, rows of zeros. From Hugging Face; 0: none.
  int64_t pad_vocab = 0;
  std::string
      tensor_map;  // a file that names the tensors of an architecture we do not know; or empty
  std::vector<std::string> metadata;  // keys to set, as KEY=VALUE or a file of them
  bool force_ternary = false;   // round weights that are not ternary, where the outtype is
  std::string kernel_config;    // of tl1 and tl2: the kernels' .ini file
  std::string base_model;  // of an adapter: a folder with its base model's config.json
  // A GGUF file with more tensor data becomes shards <name>-00001-of-0000N.gguf of at most this
  // much each, but for tensors that are larger; 0: one file.
  uint64_t split_max_bytes = 0;
  int concurrency = 0;   // workers; 0: one a core. The output is the same for any number
  bool restart = false;  // drop what an interrupted conversion left at the destination
  bool replace_other = false;  // the same, unless that was this very conversion
  FileSystem* file_system = nullptr;  // null: PosixFileSystem()
};

// How far a conversion is. `done_bytes` counts this step's output.
struct ConvertProgress {
  std::string step;  // "convert" (from Hugging Face), "split" (GGUF to model directory)
  int step_number = 0;  // from 1
  int step_count = 0;
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;
  uint64_t resumed_bytes = 0;  // of done_bytes, those an earlier run had done
  std::string item;  // the tensor or expert at hand
};

// A tensor of the output, experts stacked as GGUF has them.
struct PlannedTensor {
  std::string name;
  std::string source_format;   // "bf16", "f8_e4m3", "int4"; "" where it is made from the config
  std::string format;          // "q8_0"
  std::vector<int64_t> shape;  // row-major, outermost dimension first
  uint64_t bytes = 0;
};

// What a conversion will do, known from the headers alone.
struct ConvertPlan {
  ConvertOptions options;
  std::string architecture;          // "deepseek2"
  std::vector<std::string> outputs;  // the GGUF files, or the model directory
  std::vector<std::string> steps;    // "convert" or "split"
  std::vector<uint64_t> step_bytes;  // each step's output
  uint64_t disk_bytes = 0;           // what the output takes at the destination
  std::string note;                  // what readers do otherwise than the checkpoint's code; or ""
  uint64_t resumed_bytes = 0;        // of the step's, those an interrupted conversion left done
  std::vector<PlannedTensor> tensors;
};

// Reads the source's headers and checks that the conversion can work: known architecture, every
// tensor present with its shape, disk space.
// NOT_FOUND: no such source, or expert tensors missing (names looked for, and the nearest found).
// INVALID_ARGUMENT: neither a Hugging Face directory nor a GGUF file; unknown architecture or
// outtype. FAILED_PRECONDITION: too little disk, with the numbers; what an interrupted conversion
// left there is another one's, and neither `restart` nor `replace_other` is set. DATA_LOSS: a
// corrupt file.
absl::StatusOr<ConvertPlan> PlanConversion(const ConvertOptions& options);

// A shard's size as people write it: digits, and K, M or G for powers of 1000. INVALID_ARGUMENT:
// not that, or more than 2^63.
absl::StatusOr<uint64_t> ParseSplitSize(absl::string_view text);

// Carries a plan out, or goes on with what an interrupted run of the same conversion left: killed
// or failed, the same source, options and version. Until it is done, nothing at the destination
// reads as complete but what was there before.
// CANCELLED: asked to stop; noticed within one piece of a tensor, and what was written is removed,
// unless Cancellation::CancelAndKeepWork asked. Any other failure leaves it for the next run.
// `on_progress` is called from the threads that do the work, one call at a time. `digest`, where
// given, gets what WriteOutput says of the output's bytes.
absl::Status RunConversion(const ConvertPlan& plan, const Cancellation* cancellation,
                           const std::function<void(const ConvertProgress&)>& on_progress,
                           std::string* digest = nullptr);

// Whether an interrupted conversion to `destination` has left work to go on with.
bool HasUnfinishedConversion(FileSystem& fs, const std::string& destination);

}  // namespace odmoe
