// Who wants to see what goes into a running model's weight matrices.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace odmoe {

// The activations that one product takes. A view, valid during the call it is given to.
struct ProductInput {
  absl::string_view tensor;   // the weight's GGUF name: "blk.3.ffn_down_exps.weight"
  int64_t matrix = 0;         // which of those the tensor stacks: an expert, or a head
  int64_t matrices = 1;
  bool routed = false;        // experts, each of which sees the tokens that chose it, no others
  absl::Span<const float* const> rows;  // a token each: [columns]
  int64_t columns = 0;
};

// Told of every product with a weight while a model runs. Called by one thread at a time, in the
// order of the products. Activations that a product takes in 8 bits are told as that rounds them.
class InputObserver {
 public:
  virtual ~InputObserver() = default;
  virtual void OnInput(const ProductInput& input) = 0;
};

}  // namespace odmoe
