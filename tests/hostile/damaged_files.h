// Files that somebody could send us, each wrong in one way, and what is to be said of it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace odmoe {

struct DamagedFile {
  std::string name;  // of its corpus file too
  std::string bytes;
  absl::StatusCode code;
  std::string message;  // part of it
};

std::vector<DamagedFile> DamagedGgufs();
std::vector<DamagedFile> DamagedSafetensors();
// registry.json and metadata.json of a model directory.
std::vector<DamagedFile> DamagedRegistries();
std::vector<DamagedFile> DamagedMetadata();
// model.safetensors.index.json beside the parts of IndexedCheckpoint.
std::vector<DamagedFile> DamagedIndexes();

}  // namespace odmoe
