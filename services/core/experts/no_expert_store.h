// The expert store of a dense model: nothing is in it.
#pragma once

#include <memory>

#include "services/core/experts/expert_store.h"

namespace odmoe {

// A store without experts, budget or threads, so that a model without routed experts runs as every
// other does. Acquire of no experts gives an empty batch; of any, NOT_FOUND. Thread-safe.
// `catalog` must have no experts.
std::shared_ptr<ExpertStore> MakeNoExpertStore(ExpertCatalog catalog);

}  // namespace odmoe
