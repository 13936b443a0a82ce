// A small random deepseek2 model and its forward pass in double precision, written for plainness:
// keys and values are expanded for every head, nothing is absorbed, batched or reordered.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "services/core/generation/language_model.h"

namespace odmoe {

// What varies between the members of the family; the rest is fixed and small.
struct Variant {
  const char* name = "";
  int q_lora = 24;       // 0: one query projection, as V2-Lite
  bool sigmoid = true;   // else softmax
  bool bias = true;      // a selection bias
  bool normalize = true;
  float scale = 2.5f;
  int groups = 1;
  int groups_used = 1;
  int shared = 1;        // shared experts
  bool tied = false;     // no head of its own
  int dense_layers = 1;
};

class ReferenceModel {
 public:
  static constexpr int kVocabulary = 48, kDim = 32, kLayers = 3, kHeads = 3, kNope = 8, kRope = 4,
                       kValue = 10, kKvLora = 16, kDenseFfn = 40, kExperts = 8, kUsed = 2,
                       kExpertFfn = 20, kContext = 128;
  static constexpr float kRopeBase = 10000.0f, kEpsilon = 1e-6f;

  explicit ReferenceModel(const Variant& variant);

  // Writes the model as a GGUF file, in f32. The test fails where it cannot.
  void WriteGguf(const std::string& path) const;

  // Logits after each token.
  std::vector<std::vector<double>> Logits(const std::vector<TokenId>& tokens) const;

 private:
  struct Tensor {
    std::vector<int64_t> ne;
    std::vector<float> values;
  };
  using Vector = std::vector<double>;

  void Add(const std::string& name, std::vector<int64_t> ne);
  // Rows [first, first + rows) of a tensor times x.
  Vector Times(const std::string& name, const Vector& x, int64_t first = 0,
               int64_t rows = -1) const;
  Vector Norm(const std::string& name, const Vector& x) const;
  Vector Gated(const std::string& prefix, const std::string& suffix, const Vector& x,
               int expert) const;
  Vector Attention(const std::string& block, std::vector<Vector>& latents,
                   std::vector<Vector>& rope_keys, const Vector& x) const;
  Vector Experts(const std::string& block, const Vector& x) const;
  std::vector<int> Choose(const Vector& scores, const std::string& block) const;

  const Variant variant_;
  std::map<std::string, Tensor> tensors_;
  std::vector<std::string> order_;
};

}  // namespace odmoe
