// An inference service's counters as Prometheus collects them.
#pragma once

#include <optional>
#include <string>

#include "services/core/generation/language_model.h"
#include "services/inference/service/request_counters.h"

namespace odmoe {

// Text in Prometheus' exposition format: odmoe_inference_*, in base units (seconds, bytes), and an
// odmoe_inference_model_info of the loaded model, where there is one. Requests are labelled with
// their method and how they ended; what clients call themselves and ask is not told.
std::string InferenceMetricsText(const RequestTotals& totals,
                                 const std::optional<ModelInfo>& model);

}  // namespace odmoe
