#include "services/inference/model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace odmoe {
namespace {

// The pair that turns `rotations` times within the original context (YaRN, section 3.2).
double PairWithRotations(const RopeConfig& config, double rotations) {
  return config.dimensions *
         std::log(config.original_context / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(static_cast<double>(config.base)));
}

}  // namespace

RopeTable::RopeTable(const RopeConfig& config) {
  const int32_t pairs = config.dimensions / 2;
  frequencies_.resize(pairs);
  for (int32_t i = 0; i < pairs; ++i) {
    frequencies_[i] = std::pow(static_cast<double>(config.base), -2.0 * i / config.dimensions);
  }
  if (config.scaling == RopeConfig::Scaling::kNone) return;
  if (config.scaling == RopeConfig::Scaling::kLinear) {
    for (double& frequency : frequencies_) frequency /= config.factor;
    return;
  }
  magnitude_ = config.attention_factor;
  const double low = std::max(std::floor(PairWithRotations(config, config.beta_fast)), 0.0);
  const double high = std::min(std::ceil(PairWithRotations(config, config.beta_slow)),
                               static_cast<double>(config.dimensions - 1));
  for (int32_t i = 0; i < pairs; ++i) {
    const double ramp = std::clamp((i - low) / std::max(high - low, 0.001), 0.0, 1.0);
    const double kept = (1.0 - ramp) * config.extrapolation;
    frequencies_[i] = frequencies_[i] * kept + frequencies_[i] / config.factor * (1.0 - kept);
  }
}

void RopeTable::Fill(int64_t position, float* out) const {
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    const double angle = static_cast<double>(position) * frequencies_[i];
    out[2 * i] = static_cast<float>(std::cos(angle) * magnitude_);
    out[2 * i + 1] = static_cast<float>(std::sin(angle) * magnitude_);
  }
}

}  // namespace odmoe
