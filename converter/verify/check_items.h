// Checks many ranges of files at the same time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "converter/progress.h"
#include "services/core/io/file.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// Bytes of one format in a file.
struct CheckedExtent {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::optional<DType> dtype;  // none: its values are not looked at
};

// An expert, or a tensor.
struct CheckedItem {
  std::string name;
  // Opens its file, and checks what its header says. Called on any thread.
  std::function<absl::StatusOr<std::shared_ptr<const RandomAccessFile>>()> open;
  std::vector<CheckedExtent> extents;  // hashed in this order
  std::optional<uint64_t> xxh3;        // what all of them together should hash to

  uint64_t bytes() const;
};

// The status of each item: DATA_LOSS where the hash or a value is wrong, or what `open` or reading
// said. CANCELLED: asked to stop.
absl::StatusOr<std::vector<absl::Status>> CheckItems(const std::vector<CheckedItem>& items,
                                                     int concurrency, StepProgress& progress);

}  // namespace odmoe
