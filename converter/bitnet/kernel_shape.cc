#include "converter/bitnet/kernel_shape.h"

#include <xxhash.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "converter/huggingface/checkpoint_config.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr int64_t kMaxSide = int64_t{1} << 24;
constexpr size_t kMaxShapes = 64;
constexpr int64_t kLaneBytes = 32;
// A vector of 16-bit sums takes a block's columns: pairs of at most 2 * 127, and triples of 3 *
// 127.
constexpr int64_t kMaxBlockColumns = 256;
// tl2's file size keeps room for so many columns in pairs.
constexpr int64_t kMaxPairColumns = 256;
constexpr int64_t kTripleBlock = 24;

// Larger blocks reuse a table more often.
constexpr int64_t kBlockRows[] = {320, 256, 160, 128, 64, 32};
constexpr int64_t kTL1BlockColumns[] = {128, 64, 32};
constexpr int64_t kTL2BlockColumns[] = {192, 96, 48, 24};

absl::Status Refused(DType dtype, const KernelShape& s, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("a matrix of ", s.rows, " x ", s.columns,
                                                 " cannot be tiled for ", Info(dtype).name, ": ",
                                                 why));
}

template <size_t kCount>
int64_t LargestDivisor(const int64_t (&choices)[kCount], int64_t size) {
  const auto found = std::find_if(std::begin(choices), std::end(choices),
                                  [&](int64_t choice) { return size % choice == 0; });
  return found == std::end(choices) ? 0 : *found;
}

absl::Status CheckTL1(const KernelShape& s) {
  if (s.lane_rows != 32 && s.lane_rows != 64) {
    return Refused(DType::kTL1, s, absl::StrCat("bmm is ", s.lane_rows, ", expected 32 or 64"));
  }
  if (s.block_columns % 32 != 0 || s.block_columns > kMaxBlockColumns) {
    return Refused(
        DType::kTL1, s,
        absl::StrCat("bk is ", s.block_columns, ", expected a multiple of 32 up to 256"));
  }
  if (s.columns % s.block_columns == 0) return absl::OkStatus();
  return Refused(DType::kTL1, s,
                 absl::StrCat("k % bk is ", s.columns % s.block_columns, " (bk ", s.block_columns,
                              "), expected 0"));
}

absl::Status CheckTL2(const KernelShape& s) {
  if (s.lane_rows != 32) {
    return Refused(DType::kTL2, s, absl::StrCat("bmm is ", s.lane_rows, ", expected 32"));
  }
  if (s.block_columns % kTripleBlock != 0 || s.block_columns > kMaxBlockColumns) {
    return Refused(
        DType::kTL2, s,
        absl::StrCat("bk is ", s.block_columns, ", expected a multiple of 24 up to 256"));
  }
  if (s.columns <= kMaxPairColumns || s.columns < s.block_columns) {
    return Refused(DType::kTL2, s, "it needs more than 256 columns");
  }
  const int64_t pair_columns = s.columns % s.block_columns;
  if (pair_columns % 32 == 0 && pair_columns <= kMaxPairColumns) return absl::OkStatus();
  return Refused(DType::kTL2, s,
                 absl::StrCat("k % bk is ", pair_columns, " (bk ", s.block_columns,
                              "), expected a multiple of 32 up to 256"));
}

// `[section]` and `key = value` lines, keys in any case; other lines are refused.
absl::Status ParseIniLine(absl::string_view line, const std::string& where,
                          std::vector<KernelShape>& shapes) {
  const auto wrong = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": '", line.substr(0, 60), "' ", what));
  };
  if (line.front() == '[' && line.back() == ']') {
    if (shapes.size() == kMaxShapes) return wrong("is a section too many: at most 64 are read");
    shapes.emplace_back();
    return absl::OkStatus();
  }
  const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits('=', 1));
  if (parts.size() != 2 || shapes.empty())
    return wrong("is neither a section nor a setting in one");
  const std::string key = absl::AsciiStrToLower(absl::StripAsciiWhitespace(parts[0]));
  int64_t value = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(parts[1]), &value) || value < 1 ||
      value > kMaxSide) {
    return wrong("does not set a size");
  }
  KernelShape& shape = shapes.back();
  const std::pair<absl::string_view, int64_t*> members[] = {{"m", &shape.rows},
                                                            {"k", &shape.columns},
                                                            {"bm", &shape.block_rows},
                                                            {"bk", &shape.block_columns},
                                                            {"bmm", &shape.lane_rows}};
  for (const auto& [name, member] : members) {
    if (name != key) continue;
    if (*member != 0) return wrong("is there twice");
    *member = value;
    return absl::OkStatus();
  }
  return wrong("is no setting of a kernel: m, k, bm, bk, bmm");
}

}  // namespace

const KernelShape* KernelConfig::Find(int64_t rows, int64_t columns) const {
  const auto found = std::find_if(shapes.begin(), shapes.end(), [&](const KernelShape& shape) {
    return shape.rows == rows && shape.columns == columns;
  });
  return found == shapes.end() ? nullptr : &*found;
}

absl::Status CheckKernelShape(DType dtype, const KernelShape& s) {
  for (int64_t size : {s.rows, s.columns, s.block_rows, s.block_columns, s.lane_rows}) {
    if (size < 1 || size > kMaxSide) {
      return Refused(dtype, s, absl::StrCat(size, " is no size"));
    }
  }
  if (s.rows % s.block_rows != 0) {
    return Refused(
        dtype, s,
        absl::StrCat("m % bm is ", s.rows % s.block_rows, " (bm ", s.block_rows, "), expected 0"));
  }
  if (s.block_rows % s.lane_rows != 0) {
    return Refused(dtype, s,
                   absl::StrCat("bm % bmm is ", s.block_rows % s.lane_rows, " (bm ", s.block_rows,
                                ", bmm ", s.lane_rows, "), expected 0"));
  }
  return dtype == DType::kTL1 ? CheckTL1(s) : CheckTL2(s);
}

absl::StatusOr<KernelShape> ChooseKernelShape(DType dtype, int64_t rows, int64_t columns) {
  KernelShape shape = {.rows = rows, .columns = columns};
  if (rows < 1 || columns < 1) return Refused(dtype, shape, "it is empty");
  shape.block_rows = LargestDivisor(kBlockRows, rows);
  if (shape.block_rows == 0) {
    return Refused(dtype, shape, absl::StrCat("m % 32 is ", rows % kLaneBytes, ", expected 0"));
  }
  if (dtype == DType::kTL1) {
    shape.lane_rows = shape.block_rows % 64 == 0 ? 64 : 32;
    shape.block_columns = LargestDivisor(kTL1BlockColumns, columns);
    if (shape.block_columns == 0) {
      return Refused(dtype, shape, absl::StrCat("k % 32 is ", columns % 32, ", expected 0"));
    }
  } else {
    shape.lane_rows = 32;
    for (const int64_t block : kTL2BlockColumns) {
      shape.block_columns = block;
      if (CheckKernelShape(dtype, shape).ok()) return shape;
    }
    shape.block_columns = kTL2BlockColumns[0];
  }
  ODMOE_RETURN_IF_ERROR(CheckKernelShape(dtype, shape));
  return shape;
}

absl::StatusOr<KernelConfig> ChooseKernelConfig(DType dtype, const nlohmann::json& config,
                                                const std::string& where) {
  constexpr const char* kRequired[] = {"hidden_size", "intermediate_size", "num_attention_heads"};
  ODMOE_ASSIGN_OR_RETURN(const CheckpointConfig c, ReadCheckpointConfig(config, where, kRequired));
  const int64_t queries = c.num_attention_heads * c.HeadWidth();
  const int64_t keys = c.KeyHeads() * c.HeadWidth();
  const std::pair<int64_t, int64_t> matrices[] = {{queries, c.hidden_size},
                                                  {keys, c.hidden_size},
                                                  {c.hidden_size, queries},
                                                  {c.intermediate_size, c.hidden_size},
                                                  {c.hidden_size, c.intermediate_size}};
  KernelConfig kernels{.dtype = dtype};
  for (const auto& [rows, columns] : matrices) {
    if (kernels.Find(rows, columns) != nullptr) continue;
    auto shape = ChooseKernelShape(dtype, rows, columns);
    if (!shape.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": ", shape.status().message()));
    }
    kernels.shapes.push_back(*shape);
  }
  return kernels;
}

std::string EncodeKernelIni(const KernelConfig& config) {
  std::string text;
  for (size_t i = 0; i < config.shapes.size(); ++i) {
    const KernelShape& s = config.shapes[i];
    absl::StrAppendFormat(&text, "[Kernels_%d]\nm = %d\nk = %d\nbm = %d\nbk = %d\nbmm = %d\n\n", i,
                          s.rows, s.columns, s.block_rows, s.block_columns, s.lane_rows);
  }
  return text;
}

absl::StatusOr<KernelConfig> ParseKernelIni(DType dtype, absl::string_view text,
                                            const std::string& where) {
  KernelConfig config{.dtype = dtype};
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == ';' || line.front() == '#') continue;
    ODMOE_RETURN_IF_ERROR(ParseIniLine(line, where, config.shapes));
  }
  if (config.shapes.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": no kernels in it"));
  }
  for (const KernelShape& shape : config.shapes) {
    const absl::Status checked = CheckKernelShape(dtype, shape);
    if (!checked.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": ", checked.message()));
    }
    if (config.Find(shape.rows, shape.columns) == &shape) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": two kernels for ", shape.rows, " x ", shape.columns));
  }
  return config;
}

std::string KernelHash(const KernelConfig& config) {
  const std::string ini = EncodeKernelIni(config);
  return absl::StrFormat("%016x", XXH3_64bits(ini.data(), ini.size()));
}

}  // namespace odmoe
