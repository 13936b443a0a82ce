// A tensor of the GGUF file as a recipe: which rows of which checkpoint weights it is made of.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "converter/bitnet/kernel_shape.h"
#include "converter/huggingface/checkpoint.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// How the rows of a part follow each other in the output.
enum class RowOrder {
  kAsStored,
  kTransposed,   // the columns become the rows
  kRotaryPairs,  // row i and row i + half of each head side by side, instead of half a head apart
  kTensorScale,  // no rows, but a ternary weight's scale: i2_s's tail, or one f32
  kTiles,        // all rows of a ternary weight in BitNet's tl1 or tl2, made as one
};

// Rows [first_row, first_row + row_count) of a weight seen as a matrix of `columns` columns.
struct SourceRows {
  const CheckpointTensor* tensor = nullptr;  // null: rows of zeros, kAsStored
  int64_t columns = 0;
  int64_t first_row = 0;
  int64_t row_count = 0;
  RowOrder order = RowOrder::kAsStored;
  int64_t head_rows = 0;  // of kRotaryPairs: rows of a head, which divide row_count; even
  const KernelShape* kernel = nullptr;  // of kTiles
};

// The output's data is its parts' data, one after the other.
struct OutputTensor {
  GgufTensor info;                 // name, dtype, ne, bytes
  std::vector<SourceRows> parts;
  std::vector<float> values = {};  // where there are no parts: the data itself
};

// Rows and columns of a weight seen as a matrix, columns its innermost dimension; a vector is one
// row.
int64_t MatrixRows(const CheckpointTensor& tensor);
int64_t MatrixColumns(const CheckpointTensor& tensor);

// A weight's rows, by default all, as they are stored.
SourceRows WholeRows(const CheckpointTensor& tensor);

// Makes the output's bytes, in order, a piece at a time: `sink` gets each. Holds a few MiB, or one
// part where it is transposed or tiled, or one head's rows where they are reordered. Thread-safe,
// and the same bytes at every call.
absl::Status StreamTensor(const OutputTensor& output,
                          const std::function<absl::Status(absl::Span<const std::byte>)>& sink);

// The same for one part of it.
absl::Status StreamPart(const OutputTensor& output, size_t part,
                        const std::function<absl::Status(absl::Span<const std::byte>)>& sink);

}  // namespace odmoe
