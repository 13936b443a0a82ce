// Model directories of random experts.
#pragma once

#include <memory>
#include <string>

#include "services/core/experts/memory_expert_source.h"

namespace odmoe {

// Writes the experts of a random model under `directory`/experts, registry last, as the converter
// does; no base model. Returns the same experts in memory, to compare with. The test fails where it
// cannot be written.
std::unique_ptr<MemoryExpertSource> WriteRandomExperts(
    const std::string& directory, const MemoryExpertSource::RandomOptions& options);

// Where WriteRandomExperts puts an expert.
std::string ExpertPath(const std::string& directory, ExpertId id);
// Offset of its data.
inline constexpr uint64_t kExpertDataOffset = 4096;

// Changes one bit of the expert's data in its file.
void CorruptExpert(const std::string& directory, ExpertId id);

}  // namespace odmoe
