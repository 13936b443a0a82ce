// Which experts a model has, and how one expert's bytes are laid out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/experts/expert_id.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// A matrix inside an expert's bytes: [rows, columns], row-major, RowBytes(dtype, columns) a row.
struct ExpertTensor {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  uint64_t offset = 0;  // from the expert's first byte
  uint64_t bytes = 0;

  friend bool operator==(const ExpertTensor&, const ExpertTensor&) = default;
};

// The parts an expert may have, in the order of its bytes.
enum class ExpertPart { kW1, kW2, kW3, kW1Bias, kW2Bias, kW3Bias };
inline constexpr ExpertPart kExpertParts[] = {ExpertPart::kW1,     ExpertPart::kW2,
                                              ExpertPart::kW3,     ExpertPart::kW1Bias,
                                              ExpertPart::kW2Bias, ExpertPart::kW3Bias};
// "w1.weight", "w1.bias": the tensor's name in an expert's file.
absl::string_view ExpertPartName(ExpertPart part);

// One expert: three matrices back to back, in this order, then the biases there are, no gaps.
// output = w2 (silu(w1 x + b1) * (w3 x + b3)) + b2.
struct ExpertLayout {
  ExpertTensor w1;  // gate, [ffn, dim]
  ExpertTensor w2;  // down, [dim, ffn]
  ExpertTensor w3;  // up,   [ffn, dim]
  // One row each; 0 bytes where there is none. Not aligned to their elements.
  ExpertTensor w1_bias;  // [1, ffn]
  ExpertTensor w2_bias;  // [1, dim]
  ExpertTensor w3_bias;  // [1, ffn]
  uint64_t bytes = 0;

  const ExpertTensor& part(ExpertPart part) const;
  bool has(ExpertPart which) const { return part(which).bytes > 0; }
  bool has_biases() const { return w1_bias.bytes + w2_bias.bytes + w3_bias.bytes > 0; }

  friend bool operator==(const ExpertLayout&, const ExpertLayout&) = default;
};

// Formats of the biases; none where an expert has none.
struct ExpertBiases {
  std::optional<DType> w1, w2, w3;
};

// Lays out three matrices, and biases, back to back. INVALID_ARGUMENT: shapes that do not fit each
// other, columns that are not whole blocks, sizes that overflow.
absl::StatusOr<ExpertLayout> MakeExpertLayout(DType w1, DType w2, DType w3, int64_t dim,
                                              int64_t ffn, const ExpertBiases& biases = {});

// The experts of one layer; all share a layout.
struct LayerExperts {
  int32_t layer = 0;
  int32_t expert_count = 0;
  ExpertLayout layout;
  std::vector<uint64_t> xxh3;  // XXH3-64 of each expert's bytes; empty where it is not known
};

// All routed experts of a model. Immutable once made; thread-safe.
class ExpertCatalog {
 public:
  // At most this many experts: a bound on what a hostile file can make us allocate.
  static constexpr int64_t kMaxExperts = int64_t{1} << 24;

  ExpertCatalog() = default;
  // INVALID_ARGUMENT: layers not ascending, no expert in a layer, a layout without bytes, hashes
  // that do not match the count, more than kMaxExperts.
  static absl::StatusOr<ExpertCatalog> Create(std::string model_digest,
                                              std::vector<LayerExperts> layers);

  // Hex digest that names the model's expert bytes; equal for equal bytes.
  const std::string& model_digest() const { return model_digest_; }
  const std::vector<LayerExperts>& layers() const { return layers_; }
  int64_t expert_count() const { return expert_count_; }
  // Sum over all experts, in bytes.
  uint64_t total_bytes() const { return total_bytes_; }
  // The largest expert, in bytes.
  uint64_t max_expert_bytes() const { return max_expert_bytes_; }

  // Dense number of an expert, 0 .. expert_count()-1, by layer then expert; -1: no such expert.
  int64_t IndexOf(ExpertId id) const;
  // The inverse. Requires 0 <= index < expert_count().
  ExpertId IdOf(int64_t index) const;
  // The expert's layer, or null: no such layer.
  const LayerExperts* FindLayer(int32_t layer) const;

 private:
  std::string model_digest_;
  std::vector<LayerExperts> layers_;
  std::vector<int64_t> first_index_;    // of each entry of layers_
  std::vector<int32_t> layer_position_; // layer number -> entry of layers_, or -1
  int64_t expert_count_ = 0;
  uint64_t total_bytes_ = 0;
  uint64_t max_expert_bytes_ = 0;
};

}  // namespace odmoe
