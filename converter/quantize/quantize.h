// Quantization of a model to one mix or several, as a job runs it: plan, refuse what cannot work,
// run.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "converter/convert.h"
#include "converter/quantize/mix.h"
#include "services/core/base/cancellation.h"
#include "services/core/io/file.h"

namespace odmoe {

struct QuantizeOptions {
  std::string source;              // a GGUF file, a model directory or a Hugging Face directory
  std::string destination;         // a GGUF file where it ends in ".gguf", else a model directory
  std::vector<std::string> types;  // mixes by name, each once
  // `destination` is a folder of models, NAME-TYPE.gguf for each type, or, with `directories`,
  // model directories NAME-TYPE. They are made out of one reading of the source.
  bool batch = false;
  bool directories = false;
  MixOptions tensors;
  std::string importance;   // an importance matrix's file; or ""
  bool keep_split = false;  // shards as a split source has them; of GGUF sources and destinations
  uint64_t split_max_bytes = 0;  // of tensor data a shard; 0: one file
  int concurrency = 0;           // workers; 0: one a core. The output is the same for any number
  bool restart = false;          // drop what an interrupted run left at the destination
  FileSystem* file_system = nullptr;  // null: PosixFileSystem()
};

// One model that will be made.
struct QuantizedModel {
  std::string type;                    // "q4_k_m"
  std::string path;                    // as a whole: the GGUF file or the folder
  std::vector<std::string> files;      // the GGUF file, its shards, or the folder
  std::vector<PlannedTensor> tensors;  // as in the output
  uint64_t data_bytes = 0;             // of its tensors
  uint64_t disk_bytes = 0;
  int64_t elements = 0;
  int64_t fallback_count = 0;  // tensors whose rows do not fit the format they should have had

  double bits_per_weight() const {
    return elements == 0 ? 0.0
                         : 8.0 * static_cast<double>(data_bytes) / static_cast<double>(elements);
  }
};

struct QuantizePlan {
  QuantizeOptions options;
  std::string architecture;
  std::vector<QuantizedModel> models;  // by type, as asked for
  uint64_t resumed_bytes = 0;          // that an interrupted run left done

  uint64_t data_bytes() const {
    uint64_t bytes = 0;
    for (const QuantizedModel& model : models) bytes += model.data_bytes;
    return bytes;
  }
  // The same in the form that is described to people.
  ConvertPlan Describe(const QuantizedModel& model) const;
};

// Reads headers and checks that it can work. Errors as of QuantizeSource::Open, FindMix,
// QuantizedOutput::Plan, CheckTernary, ImportanceMatrix::Open. INVALID_ARGUMENT: no types,
// or one twice; the destination is the source; a split of a folder, or two ways of it.
// FAILED_PRECONDITION: too little disk; an interrupted run of another conversion.
absl::StatusOr<QuantizePlan> PlanQuantization(const QuantizeOptions& options);

// Carries a plan out, or goes on with what an interrupted run of the same left; see RunConversion.
// The step is "quantize".
absl::Status RunQuantization(const QuantizePlan& plan, const Cancellation* cancellation,
                             const std::function<void(const ConvertProgress&)>& on_progress);

// "q4_k_m,q8_0" as a list. INVALID_ARGUMENT: as FindMix, or a type twice.
absl::StatusOr<std::vector<std::string>> ParseTypes(absl::string_view text);

}  // namespace odmoe
