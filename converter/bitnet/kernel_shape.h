// How BitNet's table-lookup kernels tile a matrix. They are compiled for given shapes, and weights
// in tl1 (ARM) or tl2 (x86) lie as one build of them reads them.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// One matrix shape and its tiling, in weights. Names in parentheses are those of the runtime's
// files.
struct KernelShape {
  int64_t rows = 0;           // (m) of the matrix
  int64_t columns = 0;        // (k)
  int64_t block_rows = 0;     // (bm) of a block that one call computes
  int64_t block_columns = 0;  // (bk)
  int64_t lane_rows = 0;      // (bmm) rows that one vector instruction looks up

  friend bool operator==(const KernelShape&, const KernelShape&) = default;
};

// The kernels of one build.
struct KernelConfig {
  DType dtype = DType::kTL2;  // or kTL1
  std::vector<KernelShape> shapes;

  // Null: no kernel for this shape.
  const KernelShape* Find(int64_t rows, int64_t columns) const;
};

// Chooses a tiling. Rules (bitnet.cpp's docs/codegen.md; the last two of each are what its layout
// and its 16-bit sums ask for beyond that):
//   tl1: rows % block_rows = 0, columns % block_columns = 0, block_rows % lane_rows = 0,
//        lane_rows 32 or 64; block_columns a multiple of 32, at most 256
//   tl2: rows % block_rows = 0, columns % block_columns % 32 = 0, block_rows % lane_rows = 0,
//        lane_rows 32; block_columns a multiple of 24, columns % block_columns at most 256
// INVALID_ARGUMENT: a shape that cannot be tiled so; the message names the rule that fails.
absl::StatusOr<KernelShape> ChooseKernelShape(DType dtype, int64_t rows, int64_t columns);

// The same rules for a tiling from elsewhere.
absl::Status CheckKernelShape(DType dtype, const KernelShape& shape);

// The tilings of all ternary matrices of a model, by its config.json; `where` names that.
// INVALID_ARGUMENT: settings that are missing, or a shape that cannot be tiled.
absl::StatusOr<KernelConfig> ChooseKernelConfig(DType dtype, const nlohmann::json& config,
                                                const std::string& where);

// kernel_config.ini, as the runtime's tools read it: a section a shape.
std::string EncodeKernelIni(const KernelConfig& config);

// The inverse. At most 64 shapes. INVALID_ARGUMENT: not such a file, or tilings against the rules
// of `dtype`; `where` names it.
absl::StatusOr<KernelConfig> ParseKernelIni(DType dtype, absl::string_view text,
                                            const std::string& where);

// Names a build's tilings: XXH3 of its EncodeKernelIni, in hex.
std::string KernelHash(const KernelConfig& config);

}  // namespace odmoe
