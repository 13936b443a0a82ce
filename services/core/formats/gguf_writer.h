// Writes a GGUF file front to back: the header with every tensor's place first, then the data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/core/formats/gguf.h"
#include "services/core/io/file.h"

namespace odmoe {

// What a header needs to know. `tensors` need name, dtype and ne; offset and bytes are worked out.
struct GgufHeader {
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;
  uint32_t version = 3;
};

// Fills in each tensor's bytes and offset, in order, at the alignment the metadata names.
// INVALID_ARGUMENT: a name that is empty, too long or there twice, a shape GGUF cannot hold, an
// alignment that is not a power of two, sizes that overflow.
absl::Status LayOutGgufTensors(GgufHeader& header);

// The header's bytes, padded to where the data starts. Requires LayOutGgufTensors.
// INVALID_ARGUMENT: larger than kMaxGgufHeaderBytes, which no reader of ours would take.
absl::StatusOr<std::string> EncodeGgufHeader(const GgufHeader& header);

// What of those bytes is not padding at the end.
uint64_t UnpaddedGgufHeaderBytes(const GgufHeader& header);

// One file being written. Takes no more memory than the header. Not thread-safe.
//
//   ODMOE_ASSIGN_OR_RETURN(auto writer, GgufWriter::Create(file, std::move(header)));
//   for each tensor, in order:  writer->Append(part) ... until its bytes are there
//   ODMOE_RETURN_IF_ERROR(writer->Finish());
class GgufWriter {
 public:
  // Writes the header. `file` is empty and outlives the writer.
  static absl::StatusOr<std::unique_ptr<GgufWriter>> Create(WritableFile& file, GgufHeader header);

  // The tensors with their places.
  const std::vector<GgufTensor>& tensors() const { return header_.tensors; }
  // What the finished file will take.
  uint64_t file_bytes() const { return file_bytes_; }

  // The next bytes of the tensor at hand; `data` ends at its end at the latest.
  // FAILED_PRECONDITION: more bytes than the tensor has. Otherwise the file's error.
  absl::Status Append(absl::Span<const std::byte> data);

  // Checks that all is there. FAILED_PRECONDITION: a tensor is not complete. Does not sync.
  absl::Status Finish();

 private:
  GgufWriter(WritableFile& file, GgufHeader header) : file_(file), header_(std::move(header)) {}
  absl::Status Pad();

  WritableFile& file_;
  GgufHeader header_;
  uint32_t alignment_ = kDefaultGgufAlignment;
  uint64_t file_bytes_ = 0;
  size_t current_ = 0;     // the tensor at hand
  uint64_t written_ = 0;   // of its bytes
};

}  // namespace odmoe
