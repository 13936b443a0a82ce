// Which experts a model has, and how one expert's bytes are laid out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

// One expert: three matrices back to back, in this order, no gaps. output = w2 (silu(w1 x) * w3 x).
struct ExpertLayout {
  ExpertTensor w1;  // gate, [ffn, dim]
  ExpertTensor w2;  // down, [dim, ffn]
  ExpertTensor w3;  // up,   [ffn, dim]
  uint64_t bytes = 0;

  friend bool operator==(const ExpertLayout&, const ExpertLayout&) = default;
};

// Lays out three matrices back to back. INVALID_ARGUMENT: shapes that do not fit each other,
// columns that are not whole blocks, sizes that overflow.
absl::StatusOr<ExpertLayout> MakeExpertLayout(DType w1, DType w2, DType w3, int64_t dim,
                                              int64_t ffn);

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
