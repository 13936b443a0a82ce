#include "converter/huggingface/tensor_ranges.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/tensor/i2_s.h"

namespace odmoe {
namespace {

// A part as a row of blocks that can be made one without the other: a row; a head's rows where they
// change places; the part itself where it is transposed.
struct PartBlocks {
  int64_t count = 0;
  int64_t rows = 0;    // of the part, a block
  uint64_t bytes = 0;  // of the output, a block
};

absl::StatusOr<PartBlocks> BlocksOf(const OutputTensor& tensor, const SourceRows& part) {
  if (part.order == RowOrder::kTensorScale) {
    const bool tail = tensor.info.dtype == DType::kI2_S;
    return PartBlocks{.count = 1, .rows = 1, .bytes = tail ? kI2_SScaleBytes : sizeof(float)};
  }
  if (part.order == RowOrder::kTiles) {
    ODMOE_ASSIGN_OR_RETURN(const uint64_t bytes,
                           TensorBytes(tensor.info.dtype, part.columns, part.row_count));
    return PartBlocks{.count = 1, .rows = part.row_count, .bytes = bytes};
  }
  const bool transposed = part.order == RowOrder::kTransposed;
  PartBlocks blocks{.count = part.row_count, .rows = 1};
  if (part.order == RowOrder::kRotaryPairs) blocks.rows = part.head_rows;
  if (transposed) blocks.rows = part.row_count;
  blocks.count = blocks.rows > 0 ? part.row_count / blocks.rows : 0;
  ODMOE_ASSIGN_OR_RETURN(
      const uint64_t row_bytes,
      RowBytes(tensor.info.dtype, transposed ? part.row_count : part.columns));
  blocks.bytes = row_bytes * static_cast<uint64_t>(transposed ? part.columns : blocks.rows);
  return blocks;
}

SourceRows Slice(const SourceRows& part, const PartBlocks& blocks, int64_t first, int64_t count) {
  SourceRows slice = part;
  slice.first_row += first * blocks.rows;
  slice.row_count = count * blocks.rows;
  return slice;
}

}  // namespace

absl::StatusOr<std::vector<OutputTensor>> CutTensor(const OutputTensor& tensor,
                                                    uint64_t min_bytes) {
  std::vector<OutputTensor> cuts;
  if (tensor.parts.empty()) {
    cuts.push_back(tensor);
    ODMOE_ASSIGN_OR_RETURN(cuts[0].info.bytes, GgufTensorBytes(tensor.info.dtype, tensor.info.ne));
    return cuts;
  }
  OutputTensor cut{.info = tensor.info};
  cut.info.bytes = 0;
  for (const SourceRows& part : tensor.parts) {
    ODMOE_ASSIGN_OR_RETURN(const PartBlocks blocks, BlocksOf(tensor, part));
    for (int64_t first = 0; first < blocks.count;) {
      const uint64_t wanted = min_bytes - std::min(min_bytes, cut.info.bytes);
      const int64_t count = std::clamp<int64_t>(
          static_cast<int64_t>((wanted + blocks.bytes - 1) / std::max<uint64_t>(blocks.bytes, 1)),
          1, blocks.count - first);
      cut.parts.push_back(Slice(part, blocks, first, count));
      cut.info.bytes += blocks.bytes * static_cast<uint64_t>(count);
      first += count;
      if (cut.info.bytes < min_bytes) continue;
      cuts.push_back(std::exchange(cut, {.info = tensor.info}));
      cut.info.bytes = 0;
    }
  }
  if (!cut.parts.empty()) cuts.push_back(std::move(cut));
  return cuts;
}

absl::Status ReadTensorRange(const OutputTensor& tensor, uint64_t offset,
                             absl::Span<std::byte> out) {
  const uint64_t end = offset + out.size();
  OutputTensor wanted{.info = tensor.info, .values = tensor.values};
  uint64_t at = 0, made_from = 0;  // of the part at hand; of the first wanted row
  for (const SourceRows& part : tensor.parts) {
    ODMOE_ASSIGN_OR_RETURN(const PartBlocks blocks, BlocksOf(tensor, part));
    const uint64_t part_end = at + blocks.bytes * static_cast<uint64_t>(blocks.count);
    if (part_end > offset && at < end) {
      const uint64_t from = std::max(at, offset) - at, to = std::min(part_end, end) - at;
      const uint64_t first = from / blocks.bytes;
      const uint64_t last = (to + blocks.bytes - 1) / blocks.bytes;
      if (wanted.parts.empty()) made_from = at + first * blocks.bytes;
      wanted.parts.push_back(
          Slice(part, blocks, static_cast<int64_t>(first), static_cast<int64_t>(last - first)));
    }
    at = part_end;
  }
  if (tensor.parts.empty()) {
    ODMOE_ASSIGN_OR_RETURN(at, GgufTensorBytes(tensor.info.dtype, tensor.info.ne));
  }
  if (end < offset || end > at) {
    return absl::OutOfRangeError(absl::StrCat("'", tensor.info.name, "': cannot make ", out.size(),
                                              " bytes at offset ", offset, ": the tensor has ",
                                              at));
  }
  uint64_t made = made_from;
  ODMOE_RETURN_IF_ERROR(StreamTensor(wanted, [&](absl::Span<const std::byte> piece) {
    const uint64_t piece_end = made + piece.size();
    const uint64_t from = std::max(made, offset), to = std::min(piece_end, end);
    if (from < to)
      std::memcpy(out.data() + (from - offset), piece.data() + (from - made), to - from);
    made = piece_end;
    return absl::OkStatus();
  }));
  if (made >= end) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("'", tensor.info.name, "': made ", made, " bytes of ", at));
}

}  // namespace odmoe
