#include "converter/bitnet/tiles.h"

#include <cstdlib>
#include <functional>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr int64_t kPairColumns = 32;  // of tl2's blocks of pairs
constexpr int64_t kVectorRows = 32;   // of tl2
constexpr int64_t kSignTriples = 8;   // to a vector of signs

// A byte of indices: where it lies, and the row and the first of the columns it stands for.
using VisitByte = absl::FunctionRef<void(int64_t at, int64_t row, int64_t column)>;

// tl2's vectors are unpacked in halves, which puts the middle groups of eight rows the other way
// round.
int64_t VectorPlace(int64_t row) {
  const int64_t group = row / 8;
  const int64_t swapped = group == 1 ? 2 : group == 2 ? 1 : group;
  return swapped * 8 + row % 8;
}

// Bytes of tl1: in a group of rows, 256 / lane_rows columns at a time.
void VisitTL1(const KernelShape& s, VisitByte visit) {
  const int64_t step = 256 / s.lane_rows;  // columns
  int64_t at = 0;
  for (int64_t block_row = 0; block_row < s.rows; block_row += s.block_rows) {
    for (int64_t block = 0; block < s.columns; block += s.block_columns) {
      for (int64_t group = 0; group < s.block_rows; group += s.lane_rows) {
        for (int64_t column = block; column < block + s.block_columns; column += step) {
          for (int64_t lane = 0; lane < s.lane_rows; lane += 16) {
            for (int64_t four = 0; four < step; four += 4) {
              for (int64_t i = 0; i < 16; ++i) {
                visit(at++, block_row + group + lane + i, column + four);
              }
            }
          }
        }
      }
    }
  }
}

// Bytes of tl2: columns [first, last) in blocks of `block`, `step` columns to a byte.
void VisitTL2(const KernelShape& s, int64_t first, int64_t last, int64_t block, int64_t step,
              VisitByte visit) {
  int64_t at = 0;
  for (int64_t block_row = 0; block_row < s.rows; block_row += s.block_rows) {
    for (int64_t start = first; start < last; start += block) {
      for (int64_t group = 0; group < s.block_rows; group += kVectorRows) {
        for (int64_t column = start; column < start + block; column += step, at += kVectorRows) {
          for (int64_t i = 0; i < kVectorRows; ++i) {
            visit(at + VectorPlace(i), block_row + group + i, column);
          }
        }
      }
    }
  }
}

// Where each part of tl2 begins.
struct TL2Parts {
  explicit TL2Parts(const KernelShape& s)
      : triple_columns(s.columns / s.block_columns * s.block_columns),
        signs(triple_columns * s.rows / 6),
        pairs(signs + triple_columns * s.rows / 24) {}
  int64_t triple_columns;
  int64_t signs;
  int64_t pairs;
};

// A triple's sign: the 16-bit word at an offset into the signs, and its bit.
struct SignPlace {
  int64_t at = 0;
  unsigned bit = 0;
};

SignPlace PlaceOfSign(const KernelShape& s, const TL2Parts& parts, int64_t row, int64_t column) {
  const int64_t in_block = row % s.block_rows;
  const int64_t block_signs = s.block_rows * s.block_columns / 24;
  const int64_t blocks = parts.triple_columns / s.block_columns;
  const int64_t block = row / s.block_rows * blocks + column / s.block_columns;
  const int64_t group_signs = kVectorRows * s.block_columns / 24;
  const int64_t triple = column % s.block_columns / 3;
  const int64_t vector = block * block_signs + in_block / kVectorRows * group_signs +
                         triple / kSignTriples * kVectorRows;
  const int64_t lane = in_block % kVectorRows;
  const int64_t order = 2 * (triple % kSignTriples) + lane / 16;
  return {vector + 2 * (lane % 16), static_cast<unsigned>(15 - order)};
}

// A bit of a little-endian 16-bit word.
std::byte& ByteOfBit(std::vector<std::byte>& bytes, int64_t base, const SignPlace& place) {
  return bytes[static_cast<size_t>(base + place.at + place.bit / 8)];
}

class TileWriter {
 public:
  TileWriter(const KernelShape& shape, absl::Span<const int8_t> codes, std::vector<std::byte>& out)
      : shape_(shape), codes_(codes), out_(out) {}

  void WritePair(int64_t at, int64_t row, int64_t column) {
    out_[static_cast<size_t>(at)] = Two(Pair(row, column), Pair(row, column + 2));
  }
  void WriteTriples(const TL2Parts& parts, int64_t at, int64_t row, int64_t column) {
    const int first = Triple(row, column), second = Triple(row, column + 3);
    out_[static_cast<size_t>(at)] = Two(std::abs(first), std::abs(second));
    if (first < 0) SetSign(parts, row, column);
    if (second < 0) SetSign(parts, row, column + 3);
  }

 private:
  int Code(int64_t row, int64_t column) const {
    return codes_[static_cast<size_t>(row * shape_.columns + column)];
  }
  int Pair(int64_t row, int64_t column) const {
    return 3 * Code(row, column) + Code(row, column + 1) + 4;
  }
  int Triple(int64_t row, int64_t column) const {
    return 9 * Code(row, column) + 3 * Code(row, column + 1) + Code(row, column + 2);
  }
  static std::byte Two(int first, int second) {
    return static_cast<std::byte>(first << 4 | second);
  }
  void SetSign(const TL2Parts& parts, int64_t row, int64_t column) {
    const SignPlace place = PlaceOfSign(shape_, parts, row, column);
    ByteOfBit(out_, parts.signs, place) |= static_cast<std::byte>(1u << (place.bit % 8));
  }

  const KernelShape& shape_;
  const absl::Span<const int8_t> codes_;
  std::vector<std::byte>& out_;
};

class TileReader {
 public:
  TileReader(const KernelShape& shape, absl::Span<const std::byte> tiles, std::vector<int8_t>& out)
      : shape_(shape), tiles_(tiles), out_(out) {}

  void ReadPair(int64_t at, int64_t row, int64_t column) {
    const unsigned byte = static_cast<unsigned>(tiles_[static_cast<size_t>(at)]);
    SetPair(row, column, static_cast<int>(byte >> 4));
    SetPair(row, column + 2, static_cast<int>(byte & 15u));
  }
  void ReadTriples(const TL2Parts& parts, int64_t at, int64_t row, int64_t column) {
    const unsigned byte = static_cast<unsigned>(tiles_[static_cast<size_t>(at)]);
    SetTriple(parts, row, column, static_cast<int>(byte >> 4));
    SetTriple(parts, row, column + 3, static_cast<int>(byte & 15u));
  }
  bool valid() const { return valid_; }

 private:
  int8_t& Code(int64_t row, int64_t column) {
    return out_[static_cast<size_t>(row * shape_.columns + column)];
  }
  void SetPair(int64_t row, int64_t column, int index) {
    valid_ = valid_ && index <= 8;
    Code(row, column) = static_cast<int8_t>(index / 3 - 1);
    Code(row, column + 1) = static_cast<int8_t>(index % 3 - 1);
  }
  // In balanced ternary, 13 being 111, plus 13 makes the digits 0 to 2.
  void SetTriple(const TL2Parts& parts, int64_t row, int64_t column, int size) {
    valid_ = valid_ && size <= 13;
    const SignPlace place = PlaceOfSign(shape_, parts, row, column);
    const auto word =
        static_cast<unsigned>(tiles_[static_cast<size_t>(parts.signs + place.at + place.bit / 8)]);
    const int digits = ((word >> (place.bit % 8)) & 1u) != 0 ? 13 - size : 13 + size;
    Code(row, column) = static_cast<int8_t>(digits / 9 - 1);
    Code(row, column + 1) = static_cast<int8_t>(digits / 3 % 3 - 1);
    Code(row, column + 2) = static_cast<int8_t>(digits % 3 - 1);
  }

  const KernelShape& shape_;
  const absl::Span<const std::byte> tiles_;
  std::vector<int8_t>& out_;
  bool valid_ = true;
};

// Both ways at once: `pair` for bytes of pairs, `triples` for those of triples, with their places.
void VisitTiles(DType dtype, const KernelShape& s, VisitByte pair, VisitByte triples) {
  if (dtype == DType::kTL1) return VisitTL1(s, pair);
  const TL2Parts parts(s);
  VisitTL2(s, 0, parts.triple_columns, s.block_columns, 6, triples);
  VisitTL2(s, parts.triple_columns, s.columns, kPairColumns, 4,
           [&](int64_t at, int64_t row, int64_t column) { pair(parts.pairs + at, row, column); });
}

}  // namespace

absl::StatusOr<std::vector<std::byte>> EncodeTiles(DType dtype, const KernelShape& shape,
                                                   absl::Span<const int8_t> codes) {
  ODMOE_RETURN_IF_ERROR(CheckKernelShape(dtype, shape));
  if (codes.size() != static_cast<size_t>(shape.rows * shape.columns)) {
    return absl::InvalidArgumentError(
        absl::StrCat(codes.size(), " weights for a kernel of ", shape.rows, " x ", shape.columns));
  }
  ODMOE_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(dtype, shape.columns, shape.rows));
  std::vector<std::byte> tiles(bytes, std::byte{0});
  TileWriter writer(shape, codes, tiles);
  const TL2Parts parts(shape);
  VisitTiles(
      dtype, shape,
      [&](int64_t at, int64_t row, int64_t column) { writer.WritePair(at, row, column); },
      [&](int64_t at, int64_t row, int64_t column) {
        writer.WriteTriples(parts, at, row, column);
      });
  return tiles;
}

absl::StatusOr<std::vector<int8_t>> DecodeTiles(DType dtype, const KernelShape& shape,
                                                absl::Span<const std::byte> tiles) {
  ODMOE_RETURN_IF_ERROR(CheckKernelShape(dtype, shape));
  ODMOE_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(dtype, shape.columns, shape.rows));
  if (tiles.size() != bytes) {
    return absl::InvalidArgumentError(absl::StrCat(tiles.size(), " bytes for a kernel of ",
                                                   shape.rows, " x ", shape.columns, ", expected ",
                                                   bytes));
  }
  std::vector<int8_t> codes(static_cast<size_t>(shape.rows * shape.columns), 0);
  TileReader reader(shape, tiles, codes);
  const TL2Parts parts(shape);
  VisitTiles(
      dtype, shape,
      [&](int64_t at, int64_t row, int64_t column) { reader.ReadPair(at, row, column); },
      [&](int64_t at, int64_t row, int64_t column) { reader.ReadTriples(parts, at, row, column); });
  if (reader.valid()) return codes;
  return absl::DataLossError(absl::StrCat(Info(dtype).name, " tiles of ", shape.rows, " x ",
                                          shape.columns, " have an index that no weights have"));
}

}  // namespace odmoe
