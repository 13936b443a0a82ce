#include "converter/bitnet/join_ternary.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr int64_t kRowsPerByte = 4;
constexpr int64_t kMaxDimension = int64_t{1} << 32;

// The layers that BitNet makes ternary.
constexpr absl::string_view kProjections[] = {
    ".q_proj.weight",    ".k_proj.weight",  ".v_proj.weight",   ".o_proj.weight",
    ".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"};

bool IsProjection(absl::string_view name) {
  return absl::StartsWith(name, "model.layers.") &&
         std::any_of(std::begin(kProjections), std::end(kProjections),
                     [&](absl::string_view suffix) { return absl::EndsWith(name, suffix); });
}

// The member of quantization_config, where both are there and it is text.
std::string QuantizationSetting(const nlohmann::json& config, const char* key) {
  const auto quantization = config.find("quantization_config");
  if (quantization == config.end() || !quantization->is_object()) return "";
  const auto found = quantization->find(key);
  return found != quantization->end() && found->is_string() ? found->get<std::string>() : "";
}

bool HasBitnetClass(const nlohmann::json& config) {
  const auto classes = config.find("architectures");
  if (classes == config.end() || !classes->is_array() || classes->empty()) return false;
  return classes->front() == "BitNetForCausalLM" || classes->front() == "BitnetForCausalLM";
}

absl::Status Wrong(const CheckpointTensor& tensor, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(tensor.path(), ": tensor '", tensor.name, "' ", what));
}

absl::Status JoinPacked(const CheckpointTensor* scale, bool divides, CheckpointTensor& weight) {
  if (scale == nullptr) {
    return Wrong(weight, absl::StrCat("is packed and has no '", weight.name, "_scale'"));
  }
  if (weight.shape.size() != 2 || weight.shape[0] < 1 || weight.shape[1] < 1 ||
      weight.shape[0] > kMaxDimension) {
    return Wrong(weight, absl::StrCat("is packed and has shape [",
                                      absl::StrJoin(weight.shape, ", "), "], expected a matrix"));
  }
  int64_t elements = 1;
  for (int64_t size : scale->shape) elements *= size;
  if (elements != 1 || scale->shape.size() > 2) {
    return Wrong(*scale, absl::StrCat("has shape [", absl::StrJoin(scale->shape, ", "),
                                      "], expected one scale for the whole weight"));
  }
  bool known = false;
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (Info(dtype).safetensors != scale->stored->dtype) continue;
    weight.scales.dtype = dtype;
    known = true;
  }
  if (!known) return Wrong(*scale, absl::StrCat("is ", scale->stored->dtype, ", no float"));
  weight.scales.file = scale->file;
  weight.scales.stored = scale->stored;
  weight.shape[0] *= kRowsPerByte;
  weight.encoding = WeightEncoding::kTernaryPacked;
  weight.ternary = std::make_shared<TernaryScale>();
  weight.ternary->divides = divides;
  return absl::OkStatus();
}

}  // namespace

bool IsTernaryCheckpoint(const nlohmann::json& config) {
  const std::string method = QuantizationSetting(config, "quant_method");
  return method == "bitnet" || (method.empty() && HasBitnetClass(config));
}

absl::Status JoinTernaryWeights(const nlohmann::json& config, const std::string& where,
                                std::vector<CheckpointTensor>& tensors) {
  const std::string mode = QuantizationSetting(config, "quantization_mode");
  if (!mode.empty() && mode != "online" && mode != "offline") {
    return absl::UnimplementedError(absl::StrCat(
        where, ": quantization_config.quantization_mode is '", mode, "'; known: online, offline"));
  }
  const bool divides = QuantizationSetting(config, "linear_class") != "autobitlinear";
  std::map<std::string, const CheckpointTensor*> scales;
  for (const CheckpointTensor& tensor : tensors) {
    if (absl::EndsWith(tensor.name, ".weight_scale")) scales.emplace(tensor.name, &tensor);
  }
  absl::flat_hash_set<std::string> joined;
  for (CheckpointTensor& tensor : tensors) {
    if (!absl::EndsWith(tensor.name, ".weight")) continue;
    if (tensor.stored->dtype == "U8") {
      const auto scale = scales.find(tensor.name + "_scale");
      ODMOE_RETURN_IF_ERROR(
          JoinPacked(scale == scales.end() ? nullptr : scale->second, divides, tensor));
      joined.insert(scale->first);
    } else if (IsProjection(tensor.name) && tensor.shape.size() == 2) {
      tensor.encoding = WeightEncoding::kTernaryRounded;
      tensor.ternary = std::make_shared<TernaryScale>();
      tensor.ternary->keeps_ternary = mode != "online";
    }
  }
  tensors.erase(
      std::remove_if(tensors.begin(), tensors.end(),
                     [&](const CheckpointTensor& tensor) { return joined.contains(tensor.name); }),
      tensors.end());
  return absl::OkStatus();
}

}  // namespace odmoe
