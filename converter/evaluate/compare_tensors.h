// What a quantization did to the weights: two files of one model, tensor by tensor.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "converter/convert.h"
#include "services/core/base/cancellation.h"
#include "services/core/io/file.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// The block of weights that was hit hardest, of those that share their scales.
struct WorstBlock {
  int64_t matrix = 0;  // of those the tensor stacks: an expert, a head
  int64_t row = 0;     // within the matrix
  int64_t column = 0;  // of its first weight
  double rmse = 0.0;
  std::vector<float> base;    // its weights in the base
  std::vector<float> values;  // and in the model
};

struct TensorError {
  std::string name;  // "blk.3.ffn_down_exps.weight"
  int32_t layer = -1;  // -1: none, as the embeddings
  DType base_dtype = DType::kF32;
  DType dtype = DType::kF32;
  int64_t elements = 0;
  double base_square = 0.0;   // sum of the base's squares
  double error_square = 0.0;  // sum of squared differences
  double rmse = 0.0;          // root of the mean squared difference
  double max_error = 0.0;     // largest difference
  double relative = 0.0;      // rmse over the root mean square of the base; 0 where both are zero
  double cosine = 1.0;        // of the angle between the two tensors
  WorstBlock worst;
};

// All tensors of a layer together.
struct LayerError {
  int32_t layer = -1;
  int64_t elements = 0;
  double rmse = 0.0;
  double relative = 0.0;
  std::string worst_tensor;  // the one with the largest relative error
};

struct TensorReport {
  std::vector<TensorError> tensors;  // in the model's order
  std::vector<LayerError> layers;    // the worst first, by relative error
  // Tensors the other file does not have.
  std::vector<std::string> only_in_base;
  std::vector<std::string> only_in_model;
};

struct CompareTensorsOptions {
  // Each a GGUF file, a shard of one, a model directory or a Hugging Face checkpoint.
  std::string model;
  std::string base;
  int concurrency = 0;                // threads; 0: one a core
  FileSystem* file_system = nullptr;  // null: PosixFileSystem()
};

// Compares what both have, decoded to floats; takes some MiB a thread whatever the tensors' size.
// The figures do not depend on the threads. `on_progress` is called by one thread at a time, in
// bytes of the model.
// INVALID_ARGUMENT: a tensor of another shape, or no tensor in common. UNIMPLEMENTED: a format that
// is not decoded. DATA_LOSS: a weight that is not a number; names the tensor. CANCELLED.
absl::StatusOr<TensorReport> CompareTensors(
    const CompareTensorsOptions& options, const Cancellation* cancellation,
    const std::function<void(const ConvertProgress&)>& on_progress);

}  // namespace odmoe
