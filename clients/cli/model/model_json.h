// A model's description for programs.
#pragma once

#include "clients/cli/json_output.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

Json ModelInfoToJson(const ModelInfo& info);

}  // namespace odmoe
