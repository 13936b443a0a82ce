// A logistic model of whether an expert is demanded, learned while it is used.
#pragma once

#include <array>
#include <cstddef>

namespace odmoe {

// chance = 1 / (1 + exp(-weights . features)); trained by gradient descent on the log loss.
class UseModel {
 public:
  static constexpr size_t kFeatures = 5;
  using Features = std::array<float, kFeatures>;

  explicit UseModel(const Features& weights) : weights_(weights) {}

  float Chance(const Features& features) const;
  // Adds an example to the batch.
  void Observe(const Features& features, bool demanded);
  // Takes a step along the mean gradient of the batch.
  void Learn();
  const Features& weights() const { return weights_; }

 private:
  // Ten times less and ten times more do as well on the traces.
  static constexpr float kRate = 0.1f;
  // Keeps weights finite whatever is observed.
  static constexpr float kBound = 8.0f;

  Features weights_;
  Features gradient_{};
  float observed_ = 0.0f;
};

// log(chance / (1 - chance)), the chance kept within [0.003, 0.997].
float Logit(float chance);

}  // namespace odmoe
