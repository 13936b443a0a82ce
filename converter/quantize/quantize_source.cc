#include "converter/quantize/quantize_source.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "converter/huggingface/gguf_output.h"
#include "converter/huggingface/lora.h"
#include "converter/output/planned_file.h"
#include "converter/split/split.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/model_directory.h"

namespace odmoe {

absl::StatusOr<std::unique_ptr<QuantizeSource>> QuantizeSource::Open(FileSystem& fs,
                                                                     const std::string& path) {
  std::unique_ptr<QuantizeSource> source(new QuantizeSource);
  if (LooksLikeAdapter(fs, path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " is a LoRA adapter; quantize the model it belongs to, and apply it to that"));
  }
  if (LooksLikeCheckpoint(fs, path)) {
    ODMOE_RETURN_IF_ERROR(source->OpenCheckpoint(fs, path));
  } else if (fs.OpenForRead(absl::StrCat(path, "/", kRegistryFile)).ok()) {
    ODMOE_RETURN_IF_ERROR(source->OpenDirectory(fs, path));
  } else if (fs.ListDirectory(path).ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": neither a model directory (it has no ", kRegistryFile,
        ") nor a Hugging Face one (it has no config.json)"));
  } else {
    ODMOE_RETURN_IF_ERROR(source->OpenGguf(fs, path));
  }
  return source;
}

absl::Status QuantizeSource::OpenGguf(FileSystem& fs, const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(model_, GgufModel::Open(fs, path));
  files_ = ModelFiles(*model_);
  return absl::OkStatus();
}

absl::Status QuantizeSource::OpenDirectory(FileSystem& fs, const std::string& path) {
  form_ = QuantizeSourceForm::kModelDirectory;
  ODMOE_ASSIGN_OR_RETURN(directory_, PlanMerge(fs, path, path));
  ODMOE_ASSIGN_OR_RETURN(
      model_, GgufModel::Open(fs, OpenPlannedFile(directory_->output.files[0], path)));
  // The registry's hashes stand for all experts, as they do in a merge.
  const OutputFingerprint& fingerprint = directory_->output.fingerprint;
  decisions_ = absl::StrCat(fingerprint[0], " ", fingerprint[1]);
  return absl::OkStatus();
}

absl::Status QuantizeSource::OpenCheckpoint(FileSystem& fs, const std::string& path) {
  form_ = QuantizeSourceForm::kHuggingFace;
  ODMOE_ASSIGN_OR_RETURN(checkpoint_, PlanGguf(fs, {.folder = path, .outtype = OutType::kF32}));
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> planned,
                         OpenPlannedGguf(*checkpoint_, path));
  ODMOE_ASSIGN_OR_RETURN(model_, GgufModel::Open(fs, std::move(planned)));
  files_ = WeightFiles(*checkpoint_->checkpoint);
  decisions_ = absl::StrCat(checkpoint_->checkpoint->config().dump(), "\n", checkpoint_->decisions);
  return absl::OkStatus();
}

}  // namespace odmoe
