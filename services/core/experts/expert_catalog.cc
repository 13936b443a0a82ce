#include "services/core/experts/expert_catalog.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// Layer numbers are indices of a vector; a file that names layer 2^31 must not size it.
constexpr int32_t kMaxLayer = 1 << 16;

absl::StatusOr<ExpertTensor> MakeTensor(absl::string_view name, DType dtype, int64_t rows,
                                        int64_t columns, uint64_t offset) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(dtype, columns));
  const uint64_t limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (row_bytes == 0 || static_cast<uint64_t>(rows) > (limit - offset) / row_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " [", rows, ", ", columns, "] does not fit 63 bits of bytes"));
  }
  return ExpertTensor{dtype, rows, columns, offset, row_bytes * static_cast<uint64_t>(rows)};
}

absl::Status CheckLayer(const LayerExperts& layer, int64_t experts_before) {
  if (layer.layer < 0 || layer.layer >= kMaxLayer) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer.layer, ": expected 0 to ", kMaxLayer - 1));
  }
  if (layer.expert_count <= 0 ||
      layer.expert_count > ExpertCatalog::kMaxExperts - experts_before) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer.layer, " has ", layer.expert_count, " experts after ",
                     experts_before, " of other layers: expected at least 1 and at most ",
                     ExpertCatalog::kMaxExperts, " in all"));
  }
  if (layer.layout.bytes == 0) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", layer.layer, ": experts of 0 bytes"));
  }
  if (!layer.xxh3.empty() && layer.xxh3.size() != static_cast<size_t>(layer.expert_count)) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", layer.layer, " has ",
                                                   layer.xxh3.size(), " hashes for ",
                                                   layer.expert_count, " experts"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view ExpertPartName(ExpertPart part) {
  switch (part) {
    case ExpertPart::kW1:
      return "w1.weight";
    case ExpertPart::kW2:
      return "w2.weight";
    case ExpertPart::kW3:
      return "w3.weight";
    case ExpertPart::kW1Bias:
      return "w1.bias";
    case ExpertPart::kW2Bias:
      return "w2.bias";
    case ExpertPart::kW3Bias:
      return "w3.bias";
  }
  return "";
}

const ExpertTensor& ExpertLayout::part(ExpertPart part) const {
  switch (part) {
    case ExpertPart::kW1:
      return w1;
    case ExpertPart::kW2:
      return w2;
    case ExpertPart::kW3:
      return w3;
    case ExpertPart::kW1Bias:
      return w1_bias;
    case ExpertPart::kW2Bias:
      return w2_bias;
    case ExpertPart::kW3Bias:
      return w3_bias;
  }
  return w1;  // every enumerator has its case above
}

absl::StatusOr<ExpertLayout> MakeExpertLayout(DType w1, DType w2, DType w3, int64_t dim,
                                              int64_t ffn, const ExpertBiases& biases) {
  if (dim <= 0 || ffn <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert of dim ", dim, " and ffn ", ffn, ": both must be above 0"));
  }
  ExpertLayout layout;
  const auto place = [&](ExpertTensor& tensor, ExpertPart part, DType dtype, int64_t rows,
                         int64_t columns) -> absl::Status {
    ODMOE_ASSIGN_OR_RETURN(
        tensor, MakeTensor(ExpertPartName(part), dtype, rows, columns, layout.bytes));
    layout.bytes += tensor.bytes;
    return absl::OkStatus();
  };
  ODMOE_RETURN_IF_ERROR(place(layout.w1, ExpertPart::kW1, w1, ffn, dim));
  ODMOE_RETURN_IF_ERROR(place(layout.w2, ExpertPart::kW2, w2, dim, ffn));
  ODMOE_RETURN_IF_ERROR(place(layout.w3, ExpertPart::kW3, w3, ffn, dim));
  if (biases.w1) {
    ODMOE_RETURN_IF_ERROR(place(layout.w1_bias, ExpertPart::kW1Bias, *biases.w1, 1, ffn));
  }
  if (biases.w2) {
    ODMOE_RETURN_IF_ERROR(place(layout.w2_bias, ExpertPart::kW2Bias, *biases.w2, 1, dim));
  }
  if (biases.w3) {
    ODMOE_RETURN_IF_ERROR(place(layout.w3_bias, ExpertPart::kW3Bias, *biases.w3, 1, ffn));
  }
  return layout;
}

absl::StatusOr<ExpertCatalog> ExpertCatalog::Create(std::string model_digest,
                                                    std::vector<LayerExperts> layers) {
  ExpertCatalog catalog;
  catalog.model_digest_ = std::move(model_digest);
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerExperts& layer = layers[i];
    ODMOE_RETURN_IF_ERROR(CheckLayer(layer, catalog.expert_count_));
    if (i > 0 && layer.layer <= layers[i - 1].layer) {
      return absl::InvalidArgumentError(absl::StrCat("layer ", layer.layer, " after layer ",
                                                     layers[i - 1].layer,
                                                     ": expected ascending layers"));
    }
    const uint64_t count = static_cast<uint64_t>(layer.expert_count);
    if (layer.layout.bytes >
        (std::numeric_limits<int64_t>::max() - catalog.total_bytes_) / count) {
      return absl::InvalidArgumentError(
          absl::StrCat("layer ", layer.layer, ": the experts' bytes do not fit 63 bits"));
    }
    catalog.first_index_.push_back(catalog.expert_count_);
    catalog.layer_position_.resize(layer.layer + 1, -1);
    catalog.layer_position_[layer.layer] = static_cast<int32_t>(i);
    catalog.expert_count_ += layer.expert_count;
    catalog.total_bytes_ += count * layer.layout.bytes;
    catalog.max_expert_bytes_ = std::max(catalog.max_expert_bytes_, layer.layout.bytes);
  }
  catalog.layers_ = std::move(layers);
  return catalog;
}

const LayerExperts* ExpertCatalog::FindLayer(int32_t layer) const {
  if (layer < 0 || static_cast<size_t>(layer) >= layer_position_.size()) return nullptr;
  const int32_t position = layer_position_[layer];
  return position < 0 ? nullptr : &layers_[position];
}

int64_t ExpertCatalog::IndexOf(ExpertId id) const {
  const LayerExperts* layer = FindLayer(id.layer);
  if (layer == nullptr || id.expert < 0 || id.expert >= layer->expert_count) return -1;
  return first_index_[layer_position_[id.layer]] + id.expert;
}

ExpertId ExpertCatalog::IdOf(int64_t index) const {
  const auto after = std::upper_bound(first_index_.begin(), first_index_.end(), index);
  const size_t position = static_cast<size_t>(after - first_index_.begin()) - 1;
  return {layers_[position].layer, static_cast<int32_t>(index - first_index_[position])};
}

}  // namespace odmoe
