// Reads a GGUF file's header; tensor data stays in the file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/core/formats/gguf.h"
#include "services/core/io/file.h"

namespace odmoe {

// Elements of all arrays together: an element takes up to 32 times as much in memory as in the
// file.
inline constexpr uint64_t kMaxGgufElements = uint64_t{1} << 23;

// An open GGUF file whose header has been checked whole: every length, type, shape and offset is
// inside the file and consistent. Immutable, thread-safe.
class GgufReader {
 public:
  // INVALID_ARGUMENT: not a GGUF file, a version or type we do not know. DATA_LOSS: a GGUF file
  // that is cut short or contradicts itself; the message says at which offset.
  static absl::StatusOr<std::unique_ptr<GgufReader>> Open(
      std::unique_ptr<RandomAccessFile> file);

  const GgufMetadata& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  // Null: no such tensor.
  const GgufTensor* Find(absl::string_view name) const;
  uint32_t version() const { return version_; }
  uint32_t alignment() const { return alignment_; }
  // Where keys and tensor infos end; padding follows up to the data.
  uint64_t header_bytes() const { return header_bytes_; }
  // File offset of the data section.
  uint64_t data_offset() const { return data_offset_; }
  const RandomAccessFile& file() const { return *file_; }

  // Bytes [offset, offset + out.size()) of a tensor's data. OUT_OF_RANGE: past its end.
  absl::Status ReadTensor(const GgufTensor& tensor, uint64_t offset,
                          absl::Span<std::byte> out) const;

 private:
  GgufReader() = default;
  std::unique_ptr<RandomAccessFile> file_;
  GgufMetadata metadata_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> by_name_;
  uint32_t version_ = 3;
  uint32_t alignment_ = 32;
  uint64_t header_bytes_ = 0;
  uint64_t data_offset_ = 0;
};

}  // namespace odmoe
