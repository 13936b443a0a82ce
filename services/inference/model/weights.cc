#include "services/inference/model/weights.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"
#include "services/core/tensor/convert.h"
#include "services/core/tensor/i2_s.h"
#include "services/core/kernels/expert_mlp.h"
#include "services/core/kernels/mat_mul.h"

namespace odmoe {
namespace {

using Shape = std::vector<int64_t>;  // GGUF order, innermost first

std::string ShapeText(const Shape& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Looks tensors up by name and checks what it finds.
class Finder {
 public:
  Finder(const BaseModel& base, InputObserver* observer, ModelWeights& weights)
      : base_(base), observer_(observer), weights_(weights) {}

  bool Has(const std::string& name) const { return base_.Find(name) != nullptr; }

  absl::StatusOr<const BaseTensor*> Tensor(const std::string& name, const Shape& shape) const {
    const BaseTensor* tensor = base_.Find(name);
    if (tensor == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the model has no tensor ", name, ", expected ", ShapeText(shape)));
    }
    if (tensor->ne != shape) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is ",
                                                     ShapeText(tensor->ne), ", expected ",
                                                     ShapeText(shape)));
    }
    ODMOE_ASSIGN_OR_RETURN(const uint64_t expected,
                           TensorBytes(tensor->dtype, tensor->columns(), tensor->rows()));
    if (tensor->data.size() != expected) {
      return absl::DataLossError(absl::StrCat("tensor ", name, " has ", tensor->data.size(),
                                              " bytes, expected ", expected));
    }
    return tensor;
  }

  // A matrix that products are taken with. `shape` of more than two dimensions is stacked rows.
  absl::StatusOr<WeightMatrix> Matrix(const std::string& name, const Shape& shape) const {
    ODMOE_ASSIGN_OR_RETURN(const BaseTensor* tensor, Tensor(name, shape));
    if (absl::Status status = CheckMultipliable(tensor->dtype); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("tensor ", name, ": ", status.message()));
    }
    ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(tensor->dtype, tensor->columns()));
    WeightMatrix matrix = {tensor->dtype, tensor->rows(), tensor->columns(), row_bytes,
                           tensor->data.data()};
    matrix.observed = Observed(name, shape.size() > 2 ? shape[2] : 1, false);
    if (tensor->dtype != DType::kI2_S) return matrix;
    matrix.scale = DecodeI2_SScale(matrix.Row(matrix.rows));
    if (std::isfinite(matrix.scale)) return matrix;
    return absl::DataLossError(
        absl::StrCat("tensor ", name, " has the scale ", matrix.scale, ", expected a number"));
  }

  // Whom to tell of products with a tensor; null: nobody.
  const ObservedTensor* Observed(const std::string& name, int64_t matrices, bool routed) const {
    if (observer_ == nullptr) return nullptr;
    weights_.observed.push_back(std::make_unique<const ObservedTensor>(
        ObservedTensor{observer_, name, matrices, routed}));
    return weights_.observed.back().get();
  }

  // A vector in float, whatever it is stored as.
  absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t size) const {
    ODMOE_ASSIGN_OR_RETURN(const BaseTensor* tensor, Tensor(name, {size}));
    std::vector<float> values(size);
    ODMOE_RETURN_IF_ERROR(
        DecodeRow(tensor->dtype, tensor->data.data(), absl::MakeSpan(values)));
    return values;
  }

 private:
  const BaseModel& base_;
  InputObserver* const observer_;
  ModelWeights& weights_;
};

absl::Status FindGrouped(const ModelConfig& c, const Finder& find, const std::string& block,
                         AttentionWeights& w) {
  const int64_t keys = int64_t{c.kv_heads} * c.head_width();
  const int64_t values = int64_t{c.kv_heads} * c.value;
  ODMOE_ASSIGN_OR_RETURN(w.q, find.Matrix(block + "attn_q.weight",
                                          {c.dim, int64_t{c.heads} * c.head_width()}));
  ODMOE_ASSIGN_OR_RETURN(w.k, find.Matrix(block + "attn_k.weight", {c.dim, keys}));
  ODMOE_ASSIGN_OR_RETURN(w.v, find.Matrix(block + "attn_v.weight", {c.dim, values}));
  return absl::OkStatus();
}

absl::Status FindLatent(const ModelConfig& c, const Finder& find, const std::string& block,
                        AttentionWeights& w) {
  const int64_t queries = int64_t{c.heads} * c.head_width();
  if (c.q_lora == 0) {
    ODMOE_ASSIGN_OR_RETURN(w.q, find.Matrix(block + "attn_q.weight", {c.dim, queries}));
  } else {
    ODMOE_ASSIGN_OR_RETURN(w.q_a, find.Matrix(block + "attn_q_a.weight", {c.dim, c.q_lora}));
    ODMOE_ASSIGN_OR_RETURN(w.q_a_norm, find.Vector(block + "attn_q_a_norm.weight", c.q_lora));
    ODMOE_ASSIGN_OR_RETURN(w.q_b, find.Matrix(block + "attn_q_b.weight", {c.q_lora, queries}));
  }
  if (find.Has(block + "attn_kv_b.weight") && !find.Has(block + "attn_k_b.weight")) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model has the old tensor ", block,
                     "attn_kv_b.weight, expected attn_k_b and attn_v_b; convert it again from its "
                     "Hugging Face checkpoint"));
  }
  ODMOE_ASSIGN_OR_RETURN(w.kv_a,
                         find.Matrix(block + "attn_kv_a_mqa.weight", {c.dim, c.cache_width()}));
  ODMOE_ASSIGN_OR_RETURN(w.kv_a_norm, find.Vector(block + "attn_kv_a_norm.weight", c.kv_lora));
  ODMOE_ASSIGN_OR_RETURN(w.k_b,
                         find.Matrix(block + "attn_k_b.weight", {c.nope, c.kv_lora, c.heads}));
  ODMOE_ASSIGN_OR_RETURN(w.v_b,
                         find.Matrix(block + "attn_v_b.weight", {c.kv_lora, c.value, c.heads}));
  return absl::OkStatus();
}

absl::StatusOr<AttentionWeights> FindAttention(const ModelConfig& c, const Finder& find,
                                               const std::string& block) {
  AttentionWeights w;
  const int64_t width = int64_t{c.heads} * c.value;
  ODMOE_ASSIGN_OR_RETURN(w.norm, find.Vector(block + "attn_norm.weight", c.dim));
  ODMOE_RETURN_IF_ERROR(c.attention == AttentionKind::kGrouped ? FindGrouped(c, find, block, w)
                                                               : FindLatent(c, find, block, w));
  ODMOE_ASSIGN_OR_RETURN(w.output, find.Matrix(block + "attn_output.weight", {width, c.dim}));
  if (c.sub_norms) {
    ODMOE_ASSIGN_OR_RETURN(w.sub_norm, find.Vector(block + "attn_sub_norm.weight", width));
  }
  return w;
}

absl::StatusOr<FeedForwardWeights> FindFeedForward(const Finder& find, const std::string& prefix,
                                                   const std::string& suffix, int64_t dim,
                                                   int64_t ffn) {
  FeedForwardWeights w;
  ODMOE_ASSIGN_OR_RETURN(w.gate, find.Matrix(prefix + "ffn_gate" + suffix, {dim, ffn}));
  ODMOE_ASSIGN_OR_RETURN(w.up, find.Matrix(prefix + "ffn_up" + suffix, {dim, ffn}));
  ODMOE_ASSIGN_OR_RETURN(w.down, find.Matrix(prefix + "ffn_down" + suffix, {ffn, dim}));
  return w;
}

absl::Status CheckExpertMatrix(const ExpertTensor& tensor, absl::string_view name, int32_t layer,
                               int64_t rows, int64_t columns) {
  if (tensor.rows != rows || tensor.columns != columns) {
    return absl::FailedPreconditionError(
        absl::StrCat("the store's experts are not this model's: ", name, " of layer ",
                     layer, " is [", tensor.rows, ", ", tensor.columns, "], expected [", rows, ", ",
                     columns, "]"));
  }
  return absl::OkStatus();
}

absl::StatusOr<const LayerExperts*> FindExperts(const ModelConfig& c, const ExpertCatalog& catalog,
                                                int32_t layer) {
  const LayerExperts* experts = catalog.FindLayer(layer);
  const int32_t count = experts == nullptr ? 0 : experts->expert_count;
  if (count != c.routing.experts) {
    return absl::FailedPreconditionError(
        absl::StrCat("the store's experts are not this model's: layer ", layer, " has ", count,
                     ", expected ", c.routing.experts));
  }
  const ExpertLayout& layout = experts->layout;
  if (absl::Status status = CheckComputable(layout); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("layer ", layer, ": ", status.message()));
  }
  ODMOE_RETURN_IF_ERROR(CheckExpertMatrix(layout.w1, "w1", layer, c.expert_ffn, c.dim));
  ODMOE_RETURN_IF_ERROR(CheckExpertMatrix(layout.w2, "w2", layer, c.dim, c.expert_ffn));
  ODMOE_RETURN_IF_ERROR(CheckExpertMatrix(layout.w3, "w3", layer, c.expert_ffn, c.dim));
  return experts;
}

absl::StatusOr<LayerWeights> FindLayer(const ModelConfig& c, const Finder& find,
                                       const ExpertCatalog& catalog, int32_t layer) {
  LayerWeights w;
  const std::string block = absl::StrCat("blk.", layer, ".");
  ODMOE_ASSIGN_OR_RETURN(w.attention, FindAttention(c, find, block));
  ODMOE_ASSIGN_OR_RETURN(w.ffn_norm, find.Vector(block + "ffn_norm.weight", c.dim));
  if (!c.IsMoe(layer)) {
    w.has_ffn = true;
    ODMOE_ASSIGN_OR_RETURN(w.ffn, FindFeedForward(find, block, ".weight", c.dim, c.dense_ffn));
    if (c.sub_norms) {
      ODMOE_ASSIGN_OR_RETURN(w.ffn.sub_norm,
                             find.Vector(block + "ffn_sub_norm.weight", c.dense_ffn));
    }
    return w;
  }
  ODMOE_ASSIGN_OR_RETURN(
      w.router, find.Matrix(block + "ffn_gate_inp.weight", {c.dim, c.routing.experts}));
  if (find.Has(block + "exp_probs_b.bias")) {
    ODMOE_ASSIGN_OR_RETURN(w.router_bias,
                           find.Vector(block + "exp_probs_b.bias", c.routing.experts));
  }
  w.has_ffn = c.shared_ffn > 0;
  if (w.has_ffn) {
    ODMOE_ASSIGN_OR_RETURN(w.ffn,
                           FindFeedForward(find, block, "_shexp.weight", c.dim, c.shared_ffn));
  }
  ODMOE_ASSIGN_OR_RETURN(w.experts, FindExperts(c, catalog, layer));
  int part = 0;
  for (const char* name : {"ffn_gate_exps.weight", "ffn_down_exps.weight", "ffn_up_exps.weight"}) {
    w.observed_experts[part++] = find.Observed(block + name, c.routing.experts, true);
  }
  return w;
}

}  // namespace

absl::StatusOr<ModelWeights> FindModelWeights(const ModelConfig& config, const BaseModel& base,
                                              const ExpertCatalog& experts,
                                              InputObserver* observer) {
  ModelWeights weights;
  const Finder find(base, observer, weights);
  const Shape vocabulary = {config.dim, config.vocabulary};
  ODMOE_ASSIGN_OR_RETURN(weights.embeddings, find.Matrix("token_embd.weight", vocabulary));
  if (IsBitnetDType(weights.embeddings.dtype)) {
    return absl::UnimplementedError(absl::StrCat("tensor token_embd.weight is ",
                                                 Info(weights.embeddings.dtype).name,
                                                 ", of which no row can be read alone"));
  }
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    ODMOE_ASSIGN_OR_RETURN(LayerWeights found, FindLayer(config, find, experts, layer));
    weights.layers.push_back(std::move(found));
  }
  ODMOE_ASSIGN_OR_RETURN(weights.output_norm, find.Vector("output_norm.weight", config.dim));
  weights.output = weights.embeddings;
  if (find.Has("output.weight")) {
    ODMOE_ASSIGN_OR_RETURN(weights.output, find.Matrix("output.weight", vocabulary));
  }
  return weights;
}

}  // namespace odmoe
