// What is quantized, whatever its form: seen as one GGUF model.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/huggingface/to_gguf.h"
#include "converter/merge/merge.h"
#include "converter/output/output_plan.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/io/file.h"

namespace odmoe {

enum class QuantizeSourceForm { kGguf, kModelDirectory, kHuggingFace };

// An open model. Immutable, thread-safe. Does not move, as its parts refer to each other.
class QuantizeSource {
 public:
  // A GGUF file, or any of a split one's shards; a model directory, whose experts are read from
  // their files; a Hugging Face directory, which counts as the GGUF file that `convert --outtype
  // f32` makes of it: F32 holds every value a checkpoint has, bf16, fp8 times its scale, and int4
  // times its scale. Errors as of GgufModel::Open, PlanMerge and PlanGguf. INVALID_ARGUMENT: a
  // folder that is neither, or a LoRA adapter.
  static absl::StatusOr<std::unique_ptr<QuantizeSource>> Open(FileSystem& fs,
                                                              const std::string& path);

  QuantizeSource(const QuantizeSource&) = delete;
  QuantizeSource& operator=(const QuantizeSource&) = delete;

  QuantizeSourceForm form() const { return form_; }
  const GgufModel& model() const { return *model_; }
  // Files whose change makes it another model, and what else decides its bytes.
  const std::vector<const RandomAccessFile*>& files() const { return files_; }
  const std::string& decisions() const { return decisions_; }

 private:
  QuantizeSource() = default;
  absl::Status OpenGguf(FileSystem& fs, const std::string& path);
  absl::Status OpenDirectory(FileSystem& fs, const std::string& path);
  absl::Status OpenCheckpoint(FileSystem& fs, const std::string& path);

  QuantizeSourceForm form_ = QuantizeSourceForm::kGguf;
  std::optional<GgufPlan> checkpoint_;
  std::optional<MergePlan> directory_;
  std::vector<std::unique_ptr<RandomAccessFile>> opened_;
  std::unique_ptr<GgufModel> model_;
  std::vector<const RandomAccessFile*> files_;
  std::string decisions_;
};

}  // namespace odmoe
