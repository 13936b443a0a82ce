#include "services/expert_storage/policy/use_model.h"

#include <algorithm>
#include <cmath>

namespace odmoe {

float UseModel::Chance(const Features& features) const {
  float sum = 0.0f;
  for (size_t i = 0; i < kFeatures; ++i) sum += weights_[i] * features[i];
  return 1.0f / (1.0f + std::exp(-sum));
}

void UseModel::Observe(const Features& features, bool demanded) {
  const float error = (demanded ? 1.0f : 0.0f) - Chance(features);
  for (size_t i = 0; i < kFeatures; ++i) gradient_[i] += error * features[i];
  observed_ += 1.0f;
}

void UseModel::Learn() {
  if (observed_ == 0.0f) return;
  for (size_t i = 0; i < kFeatures; ++i) {
    const float step = kRate * gradient_[i] / observed_;
    weights_[i] = std::clamp(weights_[i] + step, -kBound, kBound);
  }
  gradient_.fill(0.0f);
  observed_ = 0.0f;
}

float Logit(float chance) {
  const float kept = std::clamp(chance, 0.003f, 0.997f);
  return std::log(kept / (1.0f - kept));
}

}  // namespace odmoe
