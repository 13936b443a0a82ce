// Model directories of random experts.
#pragma once

#include <functional>
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

// Moves the files of some experts to another model's directory, which is made where it is not
// there.
void MoveExperts(const std::string& from, const std::string& to,
                 const std::function<bool(ExpertId)>& which);

// Writes the same experts as a GGUF model, in so many shards, into `directory`; returns its path,
// or that of the first shard. Its tensors lie at multiples of 32 bytes, as most files' do.
std::string WriteGgufExperts(const std::string& directory, const MemoryExpertSource& experts,
                             int shards = 1);

// Changes one bit of the expert's data in its file.
void CorruptExpert(const std::string& directory, ExpertId id);

}  // namespace odmoe
