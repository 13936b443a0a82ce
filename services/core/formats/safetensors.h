// safetensors: tensors behind a JSON header. Layout: u64 header length, the header, the data.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/core/io/file.h"

namespace odmoe {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;  // the format's own limit

// A tensor as the header has it. Shape is row-major, outermost dimension first.
struct SafetensorsTensor {
  std::string name;
  std::string dtype;         // "BF16", "U8", ...
  std::vector<int64_t> shape;
  uint64_t offset = 0;       // from the file's first byte
  uint64_t bytes = 0;
};

// An open file whose header has been checked whole: shapes match sizes, the tensors tile the data
// section without gap or overlap, nothing lies past the end. Immutable, thread-safe.
class SafetensorsReader {
 public:
  // INVALID_ARGUMENT: not a safetensors file. DATA_LOSS: one that is cut short or contradicts
  // itself.
  static absl::StatusOr<std::unique_ptr<SafetensorsReader>> Open(
      std::unique_ptr<RandomAccessFile> file);

  // In the order of their data.
  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }
  // Null: no such tensor.
  const SafetensorsTensor* Find(absl::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // File offset of the data section.
  uint64_t data_offset() const { return data_offset_; }
  const RandomAccessFile& file() const { return *file_; }

  // Bytes [offset, offset + out.size()) of a tensor's data. OUT_OF_RANGE: past its end.
  absl::Status ReadTensor(const SafetensorsTensor& tensor, uint64_t offset,
                          absl::Span<std::byte> out) const;

 private:
  SafetensorsReader() = default;
  std::unique_ptr<RandomAccessFile> file_;
  std::vector<SafetensorsTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
  uint64_t data_offset_ = 0;
};

// Bits an element of a safetensors dtype takes. INVALID_ARGUMENT: unknown.
absl::StatusOr<uint32_t> SafetensorsDTypeBits(absl::string_view dtype);

// The file's bytes up to the data: length and header, padded with spaces so that the data starts at
// a multiple of `alignment`, a power of two of at least 8. The data is to follow in the order of
// `tensors`, back to back; their `offset` is filled in, their `bytes` are the caller's.
// INVALID_ARGUMENT: bytes that do not match dtype and shape, a header over the format's limit.
absl::StatusOr<std::string> EncodeSafetensorsHeader(
    std::vector<SafetensorsTensor>& tensors, const std::map<std::string, std::string>& metadata,
    uint64_t alignment);

}  // namespace odmoe
