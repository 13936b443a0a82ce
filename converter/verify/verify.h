// Reads a model whole and says what is damaged in it: structure, hashes, and weights that cannot
// be.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/convert.h"
#include "services/core/base/cancellation.h"
#include "services/core/io/file.h"

namespace odmoe {

struct VerifyOptions {
  // A model directory, a GGUF file (any shard of a split one), a safetensors file, or a Hugging
  // Face directory.
  std::string path;
  bool values = true;                 // false: only structure and hashes
  int concurrency = 0;                // threads that read and hash; 0: one a core
  FileSystem* file_system = nullptr;  // null: PosixFileSystem()
};

// One thing that is wrong.
struct Damage {
  std::string item;     // "layer_01_expert_003", "blk.0.attn_norm.weight", "structure"
  absl::Status status;  // what, with the file
};

struct VerifyReport {
  std::string kind;  // "model directory", "gguf", "safetensors", "hugging face directory"
  int64_t expert_count = 0;     // in files of their own
  int64_t tensor_count = 0;     // others
  uint64_t checked_bytes = 0;
  int64_t hashed_count = 0;     // experts and tensors whose recorded hash was compared
  std::vector<Damage> damages;  // the first kMaxDamages of them, structure first, then in order
  int64_t damage_count = 0;     // all

  bool intact() const { return damage_count == 0; }
};

inline constexpr int64_t kMaxDamages = 1000;

// Checks every byte. Headers, registry and metadata must agree with each other and the files; each
// expert and base-model tensor must have its recorded XXH3; no weight or scale may be NaN or
// infinite; a GGUF model must have the expert tensors that its keys announce, and as many scores
// and types as tokens. Takes 4 MiB a thread beside the headers. What is found is in the report.
// `on_progress` is called by one thread at a time.
// NOT_FOUND: nothing there. INVALID_ARGUMENT: none of the four kinds. CANCELLED.
absl::StatusOr<VerifyReport> VerifyModel(
    const VerifyOptions& options, const Cancellation* cancellation,
    const std::function<void(const ConvertProgress&)>& on_progress);

}  // namespace odmoe
