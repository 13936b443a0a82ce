// Who wants to see what goes into a running model's weight matrices.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace odmoe {

// The activations that one product takes. A view, valid during the call it is given to.
struct ProductInput {
  absl::string_view tensor;   // the weight's GGUF name: "blk.3.ffn_down_exps.weight"
  int64_t matrix = 0;         // which of those the tensor stacks: an expert, or a head
  int64_t matrices = 1;
  bool routed = false;        // experts, each of which sees the tokens that chose it, no others
  const float* x = nullptr;   // row r is x[r * stride] to x[r * stride + columns - 1]
  int64_t rows = 0;           // tokens
  int64_t columns = 0;
  int64_t stride = 0;
};

// Told of every product with a weight while a model runs. Called by one thread at a time, in the
// order of the products.
class InputObserver {
 public:
  virtual ~InputObserver() = default;
  virtual void OnInput(const ProductInput& input) = 0;
};

}  // namespace odmoe
