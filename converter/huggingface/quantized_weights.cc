#include "converter/huggingface/quantized_weights.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr int64_t kMaxBlock = 1 << 20;
constexpr int64_t kMaxDimension = 1 << 24;
constexpr char kKnown[] =
    "known: fp8 (F8_E4M3 with weight_scale_inv), compressed-tensors in the formats pack-quantized "
    "(int4, "
    "symmetric, in groups) and float-quantized (F8_E4M3). Convert the checkpoint it was quantized "
    "from";

std::string Dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

class Joiner {
 public:
  Joiner(std::vector<CheckpointTensor>& tensors) : tensors_(tensors) {
    for (size_t i = 0; i < tensors.size(); ++i) by_name_[tensors[i].name] = i;
  }

  // F8_E4M3 weights with scales named after them with `suffix`. `block`: rows and columns that
  // share a scale; none where a row or the whole weight does.
  absl::Status JoinFp8(absl::string_view suffix, std::optional<std::pair<int64_t, int64_t>> block);
  absl::Status JoinInt4(int64_t group);
  // Leaves out what was joined into others.
  void Finish();

 private:
  const CheckpointTensor* Find(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &tensors_[found->second];
  }
  absl::Status SetScales(const CheckpointTensor& scale, int64_t block_rows, int64_t block_columns,
                         CheckpointTensor& weight) const;

  std::vector<CheckpointTensor>& tensors_;
  absl::flat_hash_map<std::string, size_t> by_name_;
  std::set<std::string> joined_;            // not on their own any more
  std::vector<CheckpointTensor> appended_;
};

absl::Status Wrong(const CheckpointTensor& tensor, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(tensor.path(), ": tensor '", tensor.name, "' ", what));
}

absl::Status Joiner::SetScales(const CheckpointTensor& scale, int64_t block_rows,
                               int64_t block_columns, CheckpointTensor& weight) const {
  const std::vector<int64_t>& shape = weight.shape;
  const auto blocks = [](int64_t size, int64_t block) { return (size + block - 1) / block; };
  WeightScales& s = weight.scales;
  s = {.file = scale.file, .stored = scale.stored, .block_rows = block_rows,
       .block_columns = block_columns, .columns = blocks(shape.back(), block_columns)};
  bool known = false;
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (Info(dtype).safetensors != scale.stored->dtype) continue;
    s.dtype = dtype;
    known = true;
  }
  if (!known) return Wrong(scale, absl::StrCat("is ", scale.stored->dtype, ", no float"));
  int64_t expected = s.columns * blocks(shape[shape.size() - 2], block_rows);
  for (size_t i = 0; i + 2 < shape.size(); ++i) expected *= shape[i];
  int64_t elements = 1;
  for (int64_t size : scale.shape) elements *= size;
  if (elements == expected) return absl::OkStatus();
  return Wrong(scale, absl::StrCat("has shape [", absl::StrJoin(scale.shape, ", "), "]: ", elements,
                                   " scales, where '", weight.name, "' [",
                                   absl::StrJoin(shape, ", "), "] in blocks of ", block_rows,
                                   " by ", block_columns, " needs ", expected));
}

absl::Status Joiner::JoinFp8(absl::string_view suffix,
                             std::optional<std::pair<int64_t, int64_t>> block) {
  for (CheckpointTensor& weight : tensors_) {
    if (weight.stored->dtype != "F8_E4M3") continue;
    const CheckpointTensor* scale = Find(absl::StrCat(weight.name, suffix));
    if (scale == nullptr) {
      return Wrong(weight, absl::StrCat("is F8_E4M3 and has no '", weight.name, suffix, "'"));
    }
    if (weight.shape.size() < 2 || weight.stored->bytes == 0) {
      return Wrong(weight, "is F8_E4M3 and no matrix");
    }
    joined_.insert(scale->name);
    weight.encoding = WeightEncoding::kFp8;
    int64_t elements = 1;
    for (int64_t size : scale->shape) elements *= size;
    const int64_t rows = weight.shape[weight.shape.size() - 2];
    const int64_t block_rows = block.has_value() ? block->first : elements == 1 ? rows : 1;
    const int64_t block_columns = block.has_value() ? block->second : weight.shape.back();
    ODMOE_RETURN_IF_ERROR(SetScales(*scale, block_rows, block_columns, weight));
  }
  for (const CheckpointTensor& tensor : tensors_) {
    if (absl::EndsWith(tensor.name, "activation_scale") ||
        absl::EndsWith(tensor.name, ".input_scale")) {
      joined_.insert(tensor.name);  // of activations, which stay as they are
    }
  }
  return absl::OkStatus();
}

// Rows and columns as `weight_shape` has them.
absl::StatusOr<std::pair<int64_t, int64_t>> ReadShape(const CheckpointTensor& tensor) {
  const bool wide = tensor.stored->dtype == "I64";
  if ((!wide && tensor.stored->dtype != "I32") || tensor.shape != std::vector<int64_t>{2}) {
    return Wrong(tensor, "should be two integers");
  }
  std::byte bytes[16];
  ODMOE_RETURN_IF_ERROR(tensor.file->ReadTensor(*tensor.stored, 0,
                                                absl::MakeSpan(bytes, wide ? 16 : 8)));
  int64_t sizes[2];
  for (size_t i = 0; i < 2; ++i) {
    int32_t narrow = 0;
    std::memcpy(&narrow, bytes + 4 * i, sizeof(narrow));
    sizes[i] = narrow;
    if (wide) std::memcpy(&sizes[i], bytes + 8 * i, sizeof(sizes[i]));
    if (sizes[i] < 1 || sizes[i] > kMaxDimension) {
      return Wrong(tensor, absl::StrCat("has ", sizes[i], " where a size should be"));
    }
  }
  return std::pair(sizes[0], sizes[1]);
}

absl::Status Joiner::JoinInt4(int64_t group) {
  constexpr absl::string_view kPacked = "_packed";
  constexpr int64_t kCodesPerWord = 8;
  for (const CheckpointTensor& packed : tensors_) {
    absl::string_view base = packed.name;
    if (!absl::EndsWith(base, ".weight_packed") || !absl::ConsumeSuffix(&base, kPacked)) continue;
    const CheckpointTensor* parts[2] = {Find(absl::StrCat(base, "_scale")),
                                        Find(absl::StrCat(base, "_shape"))};
    if (parts[0] == nullptr || parts[1] == nullptr) {
      return Wrong(packed, absl::StrCat("has no '", base,
                                        parts[0] == nullptr ? "_scale'" : "_shape'"));
    }
    if (Find(absl::StrCat(base, "_zero_point")) != nullptr) {
      return absl::UnimplementedError(absl::StrCat(packed.path(), ": tensor '", base,
                                                   "_zero_point': only symmetric int4, which "
                                                   "has no zero points, can be converted"));
    }
    ODMOE_ASSIGN_OR_RETURN(const auto shape, ReadShape(*parts[1]));
    const auto [rows, columns] = shape;
    const std::vector<int64_t> expected = {rows, (columns + kCodesPerWord - 1) / kCodesPerWord};
    if (packed.stored->dtype != "I32" || packed.shape != expected) {
      return Wrong(packed, absl::StrCat("is ", packed.stored->dtype, " [",
                                        absl::StrJoin(packed.shape, ", "), "], where [", rows,
                                        ", ", columns, "] in int4 is I32 [",
                                        absl::StrJoin(expected, ", "), "]"));
    }
    CheckpointTensor weight = packed;
    weight.name = std::string(base);
    weight.shape = {rows, columns};
    weight.encoding = WeightEncoding::kInt4;
    ODMOE_RETURN_IF_ERROR(SetScales(*parts[0], 1, group, weight));
    joined_.insert({packed.name, parts[0]->name, parts[1]->name});
    appended_.push_back(std::move(weight));
  }
  return absl::OkStatus();
}

void Joiner::Finish() {
  tensors_.erase(std::remove_if(tensors_.begin(), tensors_.end(),
                                [&](const CheckpointTensor& tensor) {
                                  return joined_.contains(tensor.name);
                                }),
                 tensors_.end());
  std::move(appended_.begin(), appended_.end(), std::back_inserter(tensors_));
}

// weight_block_size: [rows, columns]; none where there is none.
absl::StatusOr<std::optional<std::pair<int64_t, int64_t>>> ReadBlock(const JsonObject& object,
                                                                     const char* key) {
  if (!object.Has(key)) return std::nullopt;
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* list, object.Array(key));
  int64_t sizes[2] = {0, 0};
  for (size_t i = 0; i < 2; ++i) {
    if (list->size() != 2 || !(*list)[i].is_number_unsigned()) {
      return object.Wrong(key, "two sizes");
    }
    const uint64_t size = (*list)[i].get<uint64_t>();
    if (size < 1 || size > kMaxBlock) return object.Wrong(key, "two sizes");
    sizes[i] = static_cast<int64_t>(size);
  }
  return std::pair(sizes[0], sizes[1]);
}

absl::Status JoinCompressed(const JsonObject& quantization, Joiner& joiner) {
  const std::string format = quantization.String("format").value_or("none");
  const auto refused = [&](absl::string_view why) {
    return absl::UnimplementedError(absl::StrCat(
        quantization.where(), ": compressed-tensors in the format ", format, why, "; ", kKnown));
  };
  ODMOE_ASSIGN_OR_RETURN(const JsonObject groups, quantization.Object("config_groups"));
  if (groups.value().size() != 1) return refused(" with other than one config group");
  ODMOE_ASSIGN_OR_RETURN(const JsonObject group,
                         groups.Object(groups.value().begin().key().c_str()));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject weights, group.Object("weights"));
  const nlohmann::json& settings = weights.value();
  const auto is = [&](const char* key, const nlohmann::json& value) {
    return settings.contains(key) && settings[key] == value;
  };
  const std::string strategy = weights.String("strategy").value_or("none");
  if (format == "pack-quantized") {
    if (!is("num_bits", 4)) return refused(" with other than 4 bits");
    if (is("symmetric", false)) return refused(" with zero points");
    if (strategy != "group" || is("type", "float")) return refused(absl::StrCat(" by ", strategy));
    ODMOE_ASSIGN_OR_RETURN(const int64_t size, weights.Int("group_size", 1, kMaxBlock));
    return joiner.JoinInt4(size);
  }
  if (format == "float-quantized" && is("type", "float") && is("num_bits", 8)) {
    if (strategy == "group") return refused(" by group");
    ODMOE_ASSIGN_OR_RETURN(const auto block, ReadBlock(weights, "block_structure"));
    return joiner.JoinFp8("_scale", block);
  }
  return refused("");
}

}  // namespace

absl::Status JoinQuantizedWeights(const nlohmann::json& config, const std::string& where,
                                  std::vector<CheckpointTensor>& tensors) {
  const auto found = config.find("quantization_config");
  if (found == config.end() || !found->is_object()) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(
      const JsonObject quantization,
      JsonObject::From(*found, absl::StrCat(where, ": quantization_config")));
  Joiner joiner(tensors);
  const nlohmann::json method = found->value("quant_method", nlohmann::json());
  if (method == "fp8") {
    ODMOE_ASSIGN_OR_RETURN(const auto block, ReadBlock(quantization, "weight_block_size"));
    ODMOE_RETURN_IF_ERROR(joiner.JoinFp8("_scale_inv", block));
  } else if (method == "compressed-tensors") {
    ODMOE_RETURN_IF_ERROR(JoinCompressed(quantization, joiner));
  } else {
    return absl::UnimplementedError(absl::StrCat(where, ": the weights are stored quantized "
                                                        "(quantization_config.quant_method ",
                                                 Dump(method), "); ", kKnown));
  }
  joiner.Finish();
  return absl::OkStatus();
}

}  // namespace odmoe
