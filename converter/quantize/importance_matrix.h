// Importance matrices: how strongly each input column of each weight matrix was driven while a
// model read a text. A quantizer weighs its errors by them.
//
// Two forms are read. The GGUF one (general.type "imatrix") has two F32 tensors for a weight `W`:
// `W.in_sum2`, the sums of squared inputs, a row an expert, and `W.counts`, the inputs seen by
// each. The legacy one (".dat", little-endian): i32 entry count; for each an i32 name length, the
// name, i32 calls, i32 value count, that many f32 (means times calls); then, optionally, i32 chunk
// count, i32 length and text of the dataset's name.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/io/file.h"

namespace odmoe {

inline constexpr char kImportanceType[] = "imatrix";
inline constexpr char kImportanceDatasetsKey[] = "imatrix.datasets";
inline constexpr char kImportanceChunkCountKey[] = "imatrix.chunk_count";
inline constexpr char kImportanceChunkSizeKey[] = "imatrix.chunk_size";

// An open importance matrix. Holds names and counts; values are read when asked for, so that a
// model whose matrix is larger than memory can be quantized. Immutable, thread-safe.
class ImportanceMatrix {
 public:
  // INVALID_ARGUMENT: neither form, or a GGUF file of another kind. DATA_LOSS: cut short, or it
  // contradicts itself; the message names the offset or the entry.
  static absl::StatusOr<std::unique_ptr<ImportanceMatrix>> Open(FileSystem& fs,
                                                                const std::string& path);
  static absl::StatusOr<std::unique_ptr<ImportanceMatrix>> Open(
      std::unique_ptr<RandomAccessFile> file);

  // The importance of the `columns` columns of matrix `matrix`, of the `matrices` that the tensor
  // `name` ("blk.3.ffn_down_exps.weight") stacks: the mean of the squared inputs; all 1 where no
  // input was seen, as in an expert that was never chosen. Empty where the file has no such tensor.
  // INVALID_ARGUMENT: it has the tensor in another size (embeddings, whose rows are not multiplied,
  // then count as missing). DATA_LOSS: a value that is negative or not a number.
  absl::StatusOr<std::vector<float>> ForTensor(absl::string_view name, int64_t columns,
                                               int64_t matrices, int64_t matrix) const;

  bool Has(absl::string_view name) const { return entries_.find(name) != entries_.end(); }
  // Weights the file knows, sorted.
  std::vector<std::string> names() const;
  size_t size() const { return entries_.size(); }
  // How often each matrix of a tensor was multiplied, where the file counts them apart, or how
  // often all of them; in the legacy form, calls. Null: no such tensor.
  const std::vector<int64_t>* counts(absl::string_view name) const;
  // Texts it was computed from, as they were named then.
  const std::vector<std::string>& datasets() const { return datasets_; }
  // Chunks of text and tokens in each; 0 where the file does not say.
  int64_t chunk_count() const { return chunk_count_; }
  int64_t chunk_size() const { return chunk_size_; }
  bool legacy() const { return legacy_; }
  const std::string& path() const { return bytes().path(); }

 private:
  struct Entry {
    uint64_t offset = 0;          // of the values, in the file
    uint64_t values = 0;
    std::vector<int64_t> counts;  // one for all values, or one for each equal part of them
  };

  ImportanceMatrix() = default;
  const RandomAccessFile& bytes() const { return gguf_ != nullptr ? gguf_->file() : *file_; }
  absl::Status IndexGguf();
  absl::Status IndexGgufTensor(const GgufTensor& sums, const std::string& name);
  absl::Status IndexLegacy();

  std::unique_ptr<GgufReader> gguf_;        // the GGUF form, or
  std::unique_ptr<RandomAccessFile> file_;  // the legacy one
  std::map<std::string, Entry, std::less<>> entries_;
  std::vector<std::string> datasets_;
  int64_t chunk_count_ = 0;
  int64_t chunk_size_ = 0;
  bool legacy_ = false;
};

}  // namespace odmoe
