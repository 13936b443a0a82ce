// A small model directory's JSON, for tests to read and to damage.
#pragma once

#include <string>
#include <vector>

#include "services/core/formats/model_index.h"

namespace odmoe {

// Layer 1 with two experts, layer 7 with one.
ExpertCatalog SmallCatalog();
std::vector<ExpertFile> SmallFiles(const ExpertCatalog& catalog);
std::string SmallRegistry();
// A stack of experts and a base tensor.
ModelIndex SmallIndex();

}  // namespace odmoe
