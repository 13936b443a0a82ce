// An evaluation as people and programs read it.
#pragma once

#include <string>

#include "clients/cli/json_output.h"
#include "converter/evaluate/compare_tensors.h"
#include "converter/evaluate/evaluate_text.h"

namespace odmoe {

Json ToJson(const TextReport& report);
Json ToJson(const TensorReport& report);

// Lines ending in '\n'.
std::string ToText(const TextReport& report);
// The `count` tensors with the largest relative error, the worst first, and all layers.
std::string ToText(const TensorReport& report, int count);

}  // namespace odmoe
