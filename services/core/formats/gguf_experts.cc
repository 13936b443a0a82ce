#include "services/core/formats/gguf_experts.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// A matrix of an expert under its name in GGUF, with its bias.
struct Matrix {
  absl::string_view kind;  // "gate"
  ExpertPart weight;
  ExpertPart bias;
};

constexpr Matrix kMatrices[] = {{"gate", ExpertPart::kW1, ExpertPart::kW1Bias},
                                {"down", ExpertPart::kW2, ExpertPart::kW2Bias},
                                {"up", ExpertPart::kW3, ExpertPart::kW3Bias}};
constexpr absl::string_view kFused = "gate_up";

std::string StackedName(int32_t layer, absl::string_view kind, absl::string_view suffix) {
  return absl::StrCat("blk.", layer, ".ffn_", kind, "_exps.", suffix);
}

std::string SingleName(int32_t layer, absl::string_view kind, int32_t expert,
                       absl::string_view suffix) {
  return absl::StrCat("blk.", layer, ".ffn_", kind, ".", expert, ".", suffix);
}

// A dimension that is not stored is 1.
int64_t Dimension(const GgufTensor& tensor, size_t i) {
  return i < tensor.ne.size() ? tensor.ne[i] : 1;
}

absl::Status WrongShape(const GgufModel& model, const GgufTensor& tensor,
                        absl::string_view expected) {
  return absl::DataLossError(absl::StrCat(model.path(), ": tensor '", tensor.name, "' has shape {",
                                          absl::StrJoin(tensor.ne, ", "), "}, expected ",
                                          expected));
}

// Looks for the experts of one layer.
class ExpertFinder {
 public:
  ExpertFinder(const GgufModel& model, int32_t layer, int32_t count,
               std::vector<std::string>& missing)
      : model_(model), layer_(layer), count_(count), missing_(missing) {}

  absl::StatusOr<GgufExpertLayer> Find() {
    GgufExpertLayer layer{.layer = layer_, .expert_count = count_};
    const size_t missing_before = missing_.size();
    for (const Matrix& matrix : kMatrices) {
      const size_t missing = missing_.size();
      ODMOE_ASSIGN_OR_RETURN(auto part, FindPart(matrix, matrix.weight, "weight"));
      if (part) {
        layer.parts.push_back(*std::move(part));
      } else if (missing_.size() == missing) {
        missing_.push_back(StackedName(layer_, matrix.kind, "weight"));
      }
    }
    for (const Matrix& matrix : kMatrices) {
      ODMOE_ASSIGN_OR_RETURN(auto part, FindPart(matrix, matrix.bias, "bias"));
      if (part) layer.parts.push_back(*std::move(part));
    }
    if (missing_.size() > missing_before) return layer;
    ODMOE_RETURN_IF_ERROR(LayOut(layer));
    return layer;
  }

 private:
  using Found = absl::StatusOr<std::optional<GgufExpertPart>>;

  // Nothing: not there in any form, or only some of it, which is then in missing_.
  Found FindPart(const Matrix& matrix, ExpertPart part, absl::string_view suffix) {
    const GgufTensor* stack = model_.Find(StackedName(layer_, matrix.kind, suffix));
    if (stack != nullptr) return Stacked(*stack, part, suffix, 1, 0);
    if (matrix.kind != "down") {
      stack = model_.Find(StackedName(layer_, kFused, suffix));
      if (stack != nullptr) return Stacked(*stack, part, suffix, 2, matrix.kind == "gate" ? 0 : 1);
    }
    return Single(matrix, part, suffix);
  }

  // Part `half` of `halves` of each expert in a tensor of all.
  Found Stacked(const GgufTensor& tensor, ExpertPart part, absl::string_view suffix,
                int64_t halves, int64_t half) {
    const size_t inner = suffix == "weight" ? 2 : 1;  // dimensions of one expert
    if (tensor.ne.size() > inner + 1) {
      return WrongShape(model_, tensor, absl::StrCat(inner + 1, " dimensions"));
    }
    if (Dimension(tensor, inner) != count_) {
      return WrongShape(model_, tensor, absl::StrCat(count_, " experts"));
    }
    const int64_t rows = Dimension(tensor, inner - 1);
    if (rows % halves != 0) {
      return WrongShape(model_, tensor, "as many rows of the gate as of up");
    }
    GgufExpertPart found{.part = part, .tensors = {&tensor}};
    found.stride = tensor.bytes / static_cast<uint64_t>(count_);
    if (suffix == "weight") {
      found.bytes = found.stride / static_cast<uint64_t>(halves);
    } else {
      ODMOE_ASSIGN_OR_RETURN(found.bytes, RowBytes(tensor.dtype, rows / halves));
    }
    found.offset = static_cast<uint64_t>(half) * found.bytes;
    shapes_.push_back({Dimension(tensor, 0) / (suffix == "bias" ? halves : 1),
                       suffix == "weight" ? rows / halves : 1});
    return std::optional(std::move(found));
  }

  // A tensor an expert.
  Found Single(const Matrix& matrix, ExpertPart part, absl::string_view suffix) {
    GgufExpertPart found{.part = part};
    // A file may claim any number of experts: a few names tell that they are not there.
    constexpr size_t kNamed = 8;
    std::vector<std::string> missing;
    for (int32_t expert = 0; expert < count_ && missing.size() < kNamed; ++expert) {
      std::string name = SingleName(layer_, matrix.kind, expert, suffix);
      const GgufTensor* tensor = model_.Find(name);
      if (tensor != nullptr) {
        found.tensors.push_back(tensor);
      } else {
        missing.push_back(std::move(name));
      }
    }
    if (found.tensors.empty()) return std::optional<GgufExpertPart>();
    if (!missing.empty()) {
      missing_.insert(missing_.end(), missing.begin(), missing.end());
      return std::optional<GgufExpertPart>();
    }
    ODMOE_RETURN_IF_ERROR(CheckAlike(found.tensors, suffix == "weight" ? 2 : 1));
    const GgufTensor& first = *found.tensors[0];
    found.bytes = first.bytes;
    shapes_.push_back({Dimension(first, 0), Dimension(first, 1)});
    return std::optional(std::move(found));
  }

  absl::Status CheckAlike(const std::vector<const GgufTensor*>& tensors, size_t dimensions) const {
    const GgufTensor& first = *tensors[0];
    for (const GgufTensor* tensor : tensors) {
      if (tensor->ne.size() > dimensions) {
        return WrongShape(model_, *tensor, absl::StrCat(dimensions, " dimensions"));
      }
      if (tensor->ne != first.ne) {
        return WrongShape(model_, *tensor,
                          absl::StrCat("{", absl::StrJoin(first.ne, ", "), "}, as '", first.name,
                                       "'"));
      }
      if (tensor->dtype != first.dtype) {
        return absl::UnimplementedError(absl::StrCat(
            model_.path(), ": tensor '", tensor->name, "' is ", Info(tensor->dtype).name,
            " and '", first.name, "' ", Info(first.dtype).name,
            ": the experts of a layer must have one format"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status LayOut(GgufExpertLayer& layer) {
    const Shape w1 = shapes_[0];
    const int64_t dim = w1.columns, ffn = w1.rows;
    ExpertBiases biases;
    for (size_t i = 0; i < layer.parts.size(); ++i) {
      const GgufExpertPart& part = layer.parts[i];
      const GgufTensor& tensor = *part.tensors[0];
      const Shape expected = ExpectedShape(part.part, dim, ffn);
      if (shapes_[i].columns != expected.columns || shapes_[i].rows != expected.rows) {
        return WrongShape(model_, tensor,
                          absl::StrCat("{", expected.columns, ", ", expected.rows,
                                       "} for an expert, by the gate's"));
      }
      if (part.part == ExpertPart::kW1Bias) biases.w1 = tensor.dtype;
      if (part.part == ExpertPart::kW2Bias) biases.w2 = tensor.dtype;
      if (part.part == ExpertPart::kW3Bias) biases.w3 = tensor.dtype;
    }
    ODMOE_ASSIGN_OR_RETURN(
        layer.layout,
        MakeExpertLayout(layer.parts[0].tensors[0]->dtype, layer.parts[1].tensors[0]->dtype,
                         layer.parts[2].tensors[0]->dtype, dim, ffn, biases));
    return absl::OkStatus();
  }

  struct Shape {
    int64_t columns = 0;
    int64_t rows = 0;
  };

  static Shape ExpectedShape(ExpertPart part, int64_t dim, int64_t ffn) {
    switch (part) {
      case ExpertPart::kW1:
      case ExpertPart::kW3:
        return {dim, ffn};
      case ExpertPart::kW2:
        return {ffn, dim};
      case ExpertPart::kW1Bias:
      case ExpertPart::kW3Bias:
        return {ffn, 1};
      case ExpertPart::kW2Bias:
        return {dim, 1};
    }
    return {};
  }

  const GgufModel& model_;
  const int32_t layer_;
  const int32_t count_;
  std::vector<std::string>& missing_;
  std::vector<Shape> shapes_;  // of one expert, by part
};

// "gate_exps" or "gate.17", taken apart; the expert is -1 for a stack.
std::optional<std::pair<absl::string_view, int32_t>> KindAndExpert(absl::string_view text) {
  if (absl::ConsumeSuffix(&text, "_exps")) return std::pair{text, -1};
  const size_t dot = text.find('.');
  int32_t expert = -1;
  if (dot == absl::string_view::npos || !absl::SimpleAtoi(text.substr(dot + 1), &expert) ||
      expert < 0) {
    return std::nullopt;
  }
  return std::pair{text.substr(0, dot), expert};
}

}  // namespace

GgufExtent GgufExpertPart::Extent(int32_t expert) const {
  if (tensors.size() > 1 || stride == 0) {
    return {tensors[static_cast<size_t>(expert)], 0, bytes};
  }
  return {tensors[0], offset + static_cast<uint64_t>(expert) * stride, bytes};
}

int32_t LayerOfTensor(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "blk.")) return -1;
  const size_t digits = name.find('.');
  int32_t layer = -1;
  if (digits == absl::string_view::npos || !absl::SimpleAtoi(name.substr(0, digits), &layer) ||
      layer < 0) {
    return -1;
  }
  return layer;
}

std::optional<ExpertTensorPlace> PlaceOfExpertTensor(absl::string_view name) {
  const std::string whole(name);
  ExpertTensorPlace place{.layer = LayerOfTensor(name)};
  if (place.layer < 0) return std::nullopt;
  absl::string_view rest = name.substr(4);
  rest.remove_prefix(rest.find('.') + 1);
  const bool weight = absl::ConsumeSuffix(&rest, ".weight");
  if (!weight && !absl::ConsumeSuffix(&rest, ".bias")) return std::nullopt;
  if (!absl::ConsumePrefix(&rest, "ffn_")) return std::nullopt;
  const auto parsed = KindAndExpert(rest);
  if (!parsed) return std::nullopt;
  place.expert = parsed->second;
  const absl::string_view suffix = weight ? "weight" : "bias";
  for (const Matrix& matrix : kMatrices) {
    if (parsed->first == matrix.kind ||
        (parsed->first == kFused && matrix.kind != "down" && place.expert < 0)) {
      place.parts.push_back(weight ? matrix.weight : matrix.bias);
    }
  }
  // The number must be written as we would, so that each tensor has one place.
  const std::string expected = place.expert < 0
                                   ? StackedName(place.layer, parsed->first, suffix)
                                   : SingleName(place.layer, parsed->first, place.expert, suffix);
  if (place.parts.empty() || whole != expected) return std::nullopt;
  return place;
}

absl::StatusOr<GgufExpertLayer> FindExperts(const GgufModel& model, int32_t layer,
                                            int32_t expert_count,
                                            std::vector<std::string>& missing) {
  return ExpertFinder(model, layer, expert_count, missing).Find();
}

}  // namespace odmoe
