// One quantized model as an output: its header, its files, and what each item of them is made of.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "converter/output/output_plan.h"
#include "converter/quantize/encode_range.h"
#include "converter/quantize/importance_matrix.h"
#include "converter/quantize/mix.h"
#include "converter/split/split.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/gguf_writer.h"

namespace odmoe {

struct QuantizedOutputOptions {
  MixInfo mix;
  MixOptions tensors;
  std::string path;              // a GGUF file where it ends in ".gguf", else a model directory
  bool keep_split = false;       // shards as the source has them
  uint64_t split_max_bytes = 0;  // of tensor data in a shard; 0: one file
  const ImportanceMatrix* importance = nullptr;  // or null
};

// Laid out; refers to the source. Does not move, as its parts refer to each other.
class QuantizedOutput {
 public:
  // Header and bytes are llama.cpp's quantizer's (b10018): keys in the source's order, then
  // general.quantization_version, general.file_type and where from the importance came; tensors by
  // layer, then name, or with `keep_split` as they are stored. INVALID_ARGUMENT: as
  // ChooseMixFormats; a mix that needs importance where there is none of a tensor; a row too long.
  // Other errors as of PlanSplit, of importance of the wrong size.
  static absl::StatusOr<std::unique_ptr<QuantizedOutput>> Plan(const GgufModel& source,
                                                               QuantizedOutputOptions options);

  QuantizedOutput(const QuantizedOutput&) = delete;
  QuantizedOutput& operator=(const QuantizedOutput&) = delete;

  const QuantizedOutputOptions& options() const { return options_; }
  const std::vector<GgufTensor>& tensors() const { return header_.tensors; }
  // The source's tensor of each.
  const std::vector<const GgufTensor*>& sources() const { return sources_; }
  int64_t fallback_count() const { return fallback_count_; }
  uint64_t disk_bytes() const { return disk_bytes_; }

  // Files, folders and texts; the items' parts are sizes only, as a group makes them.
  const OutputPlan& plan() const { return plan_; }

  // What an item, by its number in the plan, is made of: bytes of the source and the format wanted,
  // one after the other. Two outputs of one source and of the same kind have the same items.
  struct Piece {
    TensorRange range;
    DType dtype = DType::kF32;
  };
  const std::vector<Piece>& pieces(size_t item) const { return pieces_[item]; }

 private:
  explicit QuantizedOutput(const GgufModel& source, QuantizedOutputOptions options)
      : source_(source), options_(std::move(options)) {}
  void OrderTensors();
  absl::Status ChooseFormats();
  absl::Status CheckImportance(const GgufTensor& tensor, const MixChoice& choice) const;
  void SetKeys();
  absl::Status PlanFile();
  void PlanTensor(size_t index, uint64_t offset, OutputFile& file);
  absl::Status PlanDirectory();
  absl::StatusOr<Piece> PieceAt(uint64_t offset, uint64_t bytes) const;

  const GgufModel& source_;
  const QuantizedOutputOptions options_;
  GgufHeader header_;  // as of one file, laid out
  std::vector<const GgufTensor*> sources_;
  std::vector<size_t> shard_counts_;  // of the source's shards, where they are kept
  int64_t fallback_count_ = 0;
  uint64_t disk_bytes_ = 0;
  std::unique_ptr<GgufModel> unwritten_;  // the GGUF file a model directory is split from
  std::optional<SplitPlan> split_;
  OutputPlan plan_;
  std::vector<std::vector<Piece>> pieces_;  // by item
};

// The outputs, which are of `source`, as one plan: each item and those that are the same of the
// other outputs are made in one pass over the source. Fingerprint, destination and journal are
// still to be set. `outputs` outlive it.
absl::StatusOr<OutputPlan> JoinOutputs(const GgufModel& source, const ImportanceMatrix* importance,
                                       absl::Span<const std::unique_ptr<QuantizedOutput>> outputs);

}  // namespace odmoe
