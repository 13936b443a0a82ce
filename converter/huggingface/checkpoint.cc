#include "converter/huggingface/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "converter/bitnet/join_ternary.h"
#include "converter/huggingface/quantized_weights.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;
constexpr uint64_t kMaxIndexBytes = uint64_t{128} << 20;
constexpr char kIndexName[] = "model.safetensors.index.json";

constexpr DType kPlainFormats[] = {DType::kBF16, DType::kF16, DType::kF32};

absl::Status PicklesRefused(const std::string& folder, absl::string_view files) {
  return absl::InvalidArgumentError(absl::StrCat(
      folder, ": the weights are in ", files,
      " only: pickles, which run code of their author's as "
      "they are read and are not opened here. Take the model's safetensors files, or load it "
      "with the transformers library and save it again with safe_serialization=True"));
}

// A weight's file, directly in the folder.
bool IsPartName(absl::string_view name) {
  // The system's calls would read no further than a NUL.
  return !absl::StrContains(name, '/') && !absl::StrContains(name, '\0') &&
         !absl::StartsWith(name, ".") && absl::EndsWith(name, ".safetensors");
}

// "model.layers.0" of "language_model.model.layers.0".
std::string LanguageModelName(const std::string& stored) {
  return absl::StrReplaceAll(stored, {{"language_model.", ""}});
}

// Buffers that some checkpoints carry and no model needs, and the other parts of a multimodal one.
bool IsIgnored(absl::string_view name, bool multimodal) {
  if (absl::EndsWith(name, ".rotary_emb.inv_freq")) return true;
  if (!multimodal) return false;
  for (const char* part : {"vision_", "visual.", "vision.", "audio_", "audio.", "projector."}) {
    if (absl::StrContains(name, part)) return true;
  }
  return false;
}

// A text_config's members, in place of those of the same name; but the model is called what the
// whole is, whose part they describe.
void LiftTextConfig(nlohmann::json& config) {
  const auto text = config.find("text_config");
  if (text == config.end() || !text->is_object()) return;
  nlohmann::json members = *text;
  if (members.contains("architectures") && members["architectures"].is_null()) {
    members.erase("architectures");
  }
  members.erase("_name_or_path");
  config.update(members);
}

}  // namespace

Checkpoint::Checkpoint(FileSystem& fs, std::string folder) : fs_(fs), folder_(std::move(folder)) {}
Checkpoint::~Checkpoint() = default;

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(FileSystem& fs,
                                                             const std::string& folder) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(fs, folder));
  ODMOE_ASSIGN_OR_RETURN(nlohmann::json config, ReadModelConfigJson(fs, folder));
  checkpoint->config_ = std::make_unique<nlohmann::json>(std::move(config));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<std::string> parts, checkpoint->PartNames());
  for (const std::string& part : parts) ODMOE_RETURN_IF_ERROR(checkpoint->AddPart(part));
  ODMOE_RETURN_IF_ERROR(checkpoint->CheckIndex());
  ODMOE_RETURN_IF_ERROR(checkpoint->CheckTensors());
  return checkpoint;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::OpenWithoutWeights(
    FileSystem& fs, const std::string& folder) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(fs, folder));
  ODMOE_ASSIGN_OR_RETURN(nlohmann::json config, ReadModelConfigJson(fs, folder));
  checkpoint->config_ = std::make_unique<nlohmann::json>(std::move(config));
  return checkpoint;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::OpenAdapter(FileSystem& fs,
                                                                    const std::string& folder,
                                                                    nlohmann::json config) {
  constexpr char kWeights[] = "adapter_model.safetensors";
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(fs, folder));
  checkpoint->config_ = std::make_unique<nlohmann::json>(std::move(config));
  if (!fs.OpenForRead(absl::StrCat(folder, "/", kWeights)).ok() &&
      fs.OpenForRead(absl::StrCat(folder, "/adapter_model.bin")).ok()) {
    return PicklesRefused(folder, "adapter_model.bin");
  }
  ODMOE_RETURN_IF_ERROR(checkpoint->AddPart(kWeights));
  ODMOE_RETURN_IF_ERROR(checkpoint->CheckTensors());
  return checkpoint;
}

absl::StatusOr<nlohmann::json> ReadModelConfigJson(FileSystem& fs, const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/config.json");
  ODMOE_ASSIGN_OR_RETURN(nlohmann::json config, ReadJsonFile(fs, path, kMaxConfigBytes));
  ODMOE_RETURN_IF_ERROR(JsonObject::From(config, path).status());
  LiftTextConfig(config);
  return config;
}

absl::StatusOr<std::vector<std::string>> Checkpoint::PartNames() {
  const std::string index_path = absl::StrCat(folder_, "/", kIndexName);
  auto index = ReadJsonFile(fs_, index_path, kMaxIndexBytes);
  if (absl::IsNotFound(index.status())) {
    ODMOE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.ListDirectory(folder_));
    std::vector<std::string> parts;
    for (const std::string& name : names) {
      if (absl::StartsWith(name, "model") && IsPartName(name)) parts.push_back(name);
    }
    const bool pickles = std::any_of(names.begin(), names.end(), [](const std::string& name) {
      return absl::StartsWith(name, "pytorch_model") && absl::EndsWith(name, ".bin");
    });
    if (parts.empty() && pickles) {
      return PicklesRefused(folder_, "pytorch_model*.bin");
    }
    if (parts.empty()) {
      return absl::NotFoundError(
          absl::StrCat(folder_, ": no weights: neither ", kIndexName, " nor model*.safetensors"));
    }
    return parts;
  }
  if (!index.ok()) return index.status();
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(*index, index_path));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject weight_map, object.Object("weight_map"));
  std::set<std::string> parts;
  for (const auto& [tensor, part] : weight_map.value().items()) {
    if (!part.is_string() || !IsPartName(part.get<std::string>())) {
      return absl::InvalidArgumentError(
          weight_map.Wrong(tensor.c_str(), "a safetensors file in this folder").message());
    }
    index_.emplace(tensor, part.get<std::string>());
    parts.insert(part.get<std::string>());
  }
  return std::vector<std::string>(parts.begin(), parts.end());
}

absl::Status Checkpoint::AddPart(const std::string& name) {
  const std::string path = absl::StrCat(folder_, "/", name);
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file, fs_.OpenForRead(path));
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsReader> reader,
                         SafetensorsReader::Open(std::move(file)));
  std::vector<const SafetensorsTensor*> by_name;
  for (const SafetensorsTensor& stored : reader->tensors()) by_name.push_back(&stored);
  std::sort(by_name.begin(), by_name.end(),
            [](const auto* a, const auto* b) { return a->name < b->name; });
  const bool multimodal = config_->contains("text_config");
  for (const SafetensorsTensor* entry : by_name) {
    const SafetensorsTensor& stored = *entry;
    stored_names_.insert(stored.name);
    if (!index_.empty()) {
      const auto expected = index_.find(stored.name);
      if (expected == index_.end() || expected->second != name) {
        return absl::DataLossError(absl::StrCat(
            path, ": tensor '", stored.name, "' is here, ", kIndexName,
            expected == index_.end() ? " does not know it"
                                     : absl::StrCat(" says it is in ", expected->second)));
      }
    }
    if (IsIgnored(stored.name, multimodal)) continue;
    CheckpointTensor tensor{.name = LanguageModelName(stored.name),
                            .shape = stored.shape,
                            .file = reader.get(),
                            .stored = &stored};
    if (!by_name_.emplace(tensor.name, tensors_.size()).second) {
      return absl::DataLossError(
          absl::StrCat(path, ": tensor '", tensor.name, "' is in another file too"));
    }
    tensors_.push_back(std::move(tensor));
  }
  files_.push_back(std::move(reader));
  return absl::OkStatus();
}

absl::Status Checkpoint::CheckIndex() const {
  for (const auto& [name, part] : index_) {
    if (!stored_names_.contains(name)) {
      return absl::DataLossError(absl::StrCat(folder_, "/", part, ": tensor '", name,
                                              "' is missing, ", kIndexName, " says it is there"));
    }
  }
  return absl::OkStatus();
}

// Joins what is quantized with its scales; what is left must be plain numbers.
absl::Status Checkpoint::CheckTensors() {
  const auto half = std::find_if(tensors_.begin(), tensors_.end(), [](const auto& tensor) {
    return tensor.shape.size() >= 2 &&
           (tensor.stored->dtype == "BF16" || tensor.stored->dtype == "F16");
  });
  if (half != tensors_.end() && half->stored->dtype == "BF16") main_dtype_ = DType::kBF16;
  const std::string where = absl::StrCat(folder_, "/config.json");
  ODMOE_RETURN_IF_ERROR(IsTernaryCheckpoint(*config_)
                            ? JoinTernaryWeights(*config_, where, tensors_)
                            : JoinQuantizedWeights(*config_, where, tensors_));
  by_name_.clear();
  for (size_t i = 0; i < tensors_.size(); ++i) {
    CheckpointTensor& tensor = tensors_[i];
    by_name_.emplace(tensor.name, i);
    if (tensor.encoding != WeightEncoding::kPlain &&
        tensor.encoding != WeightEncoding::kTernaryRounded) {
      continue;
    }
    const auto known =
        std::find_if(std::begin(kPlainFormats), std::end(kPlainFormats),
                     [&](DType dtype) { return Info(dtype).safetensors == tensor.stored->dtype; });
    if (known == std::end(kPlainFormats)) {
      return absl::UnimplementedError(
          absl::StrCat(tensor.path(), ": tensor '", tensor.name, "' is ", tensor.stored->dtype,
                       "; only BF16, F16 and F32, and what a quantization_config explains, can be "
                       "converted"));
    }
    tensor.dtype = *known;
  }
  return absl::OkStatus();
}

std::string Checkpoint::name_or_path() const {
  const auto name = config_->find("_name_or_path");
  return name != config_->end() && name->is_string() ? name->get<std::string>() : std::string();
}

const CheckpointTensor* Checkpoint::Find(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

bool LooksLikeCheckpoint(FileSystem& fs, const std::string& folder) {
  return fs.OpenForRead(absl::StrCat(folder, "/config.json")).ok();
}

}  // namespace odmoe
