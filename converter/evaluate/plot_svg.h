// Plots of an evaluation, as one SVG document that needs nothing beside it.
#pragma once

#include <string>

#include "converter/evaluate/compare_tensors.h"
#include "converter/evaluate/text_statistics.h"

namespace odmoe {

struct EvaluationPlot {
  std::string title;
  const TensorReport* tensors = nullptr;         // relative error of each tensor, by layer; or null
  const DivergenceReport* divergence = nullptr;  // KL divergence of the positions; or null
};

// One panel for each of the two that is there. Errors of zero are left out of the logarithmic axes,
// and their number is told.
std::string PlotSvg(const EvaluationPlot& plot);

}  // namespace odmoe
