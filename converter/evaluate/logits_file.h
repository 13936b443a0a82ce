// A base model's log-probabilities in a file, as the reference perplexity tool saves and reads
// them:
//
//   "_logits_"; i32 chunk tokens, i32 vocabulary, i32 chunks; i32 tokens[chunks * chunk tokens];
//   then, for each chunk, a row for each position scored (see ScoredPositions): f32 scale,
//   f32 least, u16 codes[vocabulary], padded to an even count; a log-probability is scale * code +
//   least.
//
// All little-endian. What is more than 16 below the most likely is kept as 16 below.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/core/generation/language_model.h"
#include "services/core/io/file.h"

namespace odmoe {

// Log-probabilities a file keeps apart are above this.
inline constexpr float kLogitsFileFloor = -16.0f;

// A chunk of n tokens is scored at the positions n/2 to n - 2: what is predicted after half a chunk
// of context, up to the chunk's last token.
struct ScoredPositions {
  int64_t first = 0;
  int64_t count = 0;
};
inline ScoredPositions ScoredPositionsOf(int64_t chunk_tokens) {
  return {chunk_tokens / 2, chunk_tokens - 1 - chunk_tokens / 2};
}

struct LogitsFileHeader {
  int32_t chunk_tokens = 0;
  int32_t vocabulary = 0;
  int32_t chunks = 0;
  std::vector<TokenId> tokens;  // [chunks * chunk_tokens]
};

// Immutable, thread-safe.
class LogitsFile {
 public:
  // INVALID_ARGUMENT: not such a file. DATA_LOSS: its size is not what its header says, or a token
  // is outside the vocabulary.
  static absl::StatusOr<std::unique_ptr<LogitsFile>> Open(std::unique_ptr<RandomAccessFile> file);

  const LogitsFileHeader& header() const { return header_; }
  // Log-probabilities of the `position`th of the chunk's scored positions, counted from 0; `out`
  // has the vocabulary's length. DATA_LOSS: a scale that is no number.
  absl::Status ReadRow(int64_t chunk, int64_t position, absl::Span<float> out) const;

 private:
  LogitsFile() = default;
  std::unique_ptr<RandomAccessFile> file_;
  LogitsFileHeader header_;
  uint64_t data_offset_ = 0;
  uint64_t row_bytes_ = 0;
};

// Writes one front to back. Not thread-safe.
class LogitsFileWriter {
 public:
  static absl::StatusOr<std::unique_ptr<LogitsFileWriter>> Create(FileSystem& fs,
                                                                  const std::string& path,
                                                                  const LogitsFileHeader& header);
  // The next scored position's logits.
  absl::Status Append(absl::Span<const float> logits);
  // FAILED_PRECONDITION: rows are missing. Nothing is left at the path unless this succeeds.
  absl::Status Finish();

 private:
  LogitsFileWriter() = default;
  std::unique_ptr<AtomicFile> file_;
  int64_t rows_left_ = 0;
  std::vector<std::byte> row_;
};

}  // namespace odmoe
