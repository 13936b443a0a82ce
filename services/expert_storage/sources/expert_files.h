// The expert files of a model directory, opened one read at a time.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "services/core/experts/expert_id.h"
#include "services/core/formats/model_directory.h"

namespace odmoe {

// An open descriptor, closed with its owner. Movable.
class OpenFile {
 public:
  OpenFile() = default;
  explicit OpenFile(int fd) : fd_(fd) {}
  OpenFile(OpenFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OpenFile& operator=(OpenFile&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~OpenFile();
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

// Where an expert's bytes are, in a file that has been found long enough.
struct ExpertExtent {
  OpenFile file;
  std::string path;
  uint64_t offset = 0;  // a multiple of 4096
  uint64_t bytes = 0;
};

// Opens the file of an expert, with the open(2) `flags` besides O_RDONLY | O_CLOEXEC. Files are not
// kept open: a model has more of them than a process may have descriptors.
// NOT_FOUND: no such expert. DATA_LOSS: its file is missing or shorter than the registry says.
// UNIMPLEMENTED: the file system refuses the flags.
absl::StatusOr<ExpertExtent> OpenExpert(const ExpertRegistry& registry, ExpertId id, int flags);

}  // namespace odmoe
