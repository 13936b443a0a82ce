// A tensor of the GGUF file as a recipe: which rows of which checkpoint weights it is made of.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "converter/huggingface/checkpoint.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// Rows [first_row, first_row + row_count) of a weight seen as [rows, columns], columns its innermost
// dimension; transposed, its columns become the output's rows.
struct SourceRows {
  const CheckpointTensor* tensor = nullptr;
  int64_t first_row = 0;
  int64_t row_count = 0;
  bool transposed = false;
};

// The output's data is its parts' data, one after the other.
struct OutputTensor {
  GgufTensor info;                 // name, dtype, ne, bytes
  std::vector<SourceRows> parts;
};

// Rows and columns of a weight seen as a matrix; a vector is one row.
int64_t MatrixRows(const CheckpointTensor& tensor);
int64_t MatrixColumns(const CheckpointTensor& tensor);

// Makes the output's bytes, in order, a piece at a time: `sink` gets each. Holds a few MiB, or one
// part where it is transposed.
absl::Status StreamTensor(const OutputTensor& output,
                          const std::function<absl::Status(absl::Span<const std::byte>)>& sink);

}  // namespace odmoe
