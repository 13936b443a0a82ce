#include "converter/quantize/importance_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr char kSumsSuffix[] = ".in_sum2";
constexpr char kCountsSuffix[] = ".counts";
// Far above the experts of any layer; bounds what a hostile file can make us hold.
constexpr uint64_t kMaxMatrices = uint64_t{1} << 16;
constexpr uint64_t kMaxTextBytes = 4096;

// The legacy form, front to back.
class LegacyCursor {
 public:
  explicit LegacyCursor(const RandomAccessFile& file) : file_(file) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return file_.size() - offset_; }

  absl::Status Corrupt(absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(file_.path(), ": at offset ", offset_, ": ", what));
  }
  absl::StatusOr<int32_t> Int(absl::string_view what) {
    int32_t value = 0;
    ODMOE_RETURN_IF_ERROR(Require(sizeof(value), what));
    ODMOE_RETURN_IF_ERROR(file_.ReadAt(
        offset_, absl::MakeSpan(reinterpret_cast<std::byte*>(&value), sizeof(value))));
    offset_ += sizeof(value);
    return value;
  }
  // A length, then the text.
  absl::StatusOr<std::string> Text(absl::string_view what) {
    ODMOE_ASSIGN_OR_RETURN(const int32_t length, Int(what));
    if (length < 0 || static_cast<uint64_t>(length) > kMaxTextBytes) {
      return Corrupt(absl::StrCat(what, " of ", length, " bytes, expected 0 to ", kMaxTextBytes));
    }
    ODMOE_RETURN_IF_ERROR(Require(static_cast<uint64_t>(length), what));
    std::string text(length, '\0');
    ODMOE_RETURN_IF_ERROR(file_.ReadAt(
        offset_, absl::MakeSpan(reinterpret_cast<std::byte*>(text.data()), text.size())));
    offset_ += text.size();
    return text;
  }
  absl::Status Skip(uint64_t bytes, absl::string_view what) {
    ODMOE_RETURN_IF_ERROR(Require(bytes, what));
    offset_ += bytes;
    return absl::OkStatus();
  }

 private:
  absl::Status Require(uint64_t bytes, absl::string_view what) const {
    if (bytes <= remaining()) return absl::OkStatus();
    return Corrupt(absl::StrCat(what, " takes ", bytes, " bytes; the file ends after ",
                                remaining()));
  }

  const RandomAccessFile& file_;
  uint64_t offset_ = 0;
};

// A key the GGUF form has to have.
template <typename T>
absl::StatusOr<T> Required(absl::StatusOr<T> value, const std::string& path) {
  if (!absl::IsNotFound(value.status())) return value;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": as an importance matrix: ", value.status().message()));
}

// Embedding rows are looked up, not multiplied: no text gives them an importance.
bool IsEmbedding(absl::string_view name) {
  return name == "token_embd.weight" || name == "per_layer_token_embd.weight";
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImportanceMatrix>> ImportanceMatrix::Open(FileSystem& fs,
                                                                         const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file, fs.OpenForRead(path));
  return Open(std::move(file));
}

absl::StatusOr<std::unique_ptr<ImportanceMatrix>> ImportanceMatrix::Open(
    std::unique_ptr<RandomAccessFile> file) {
  char magic[4] = {};
  if (file->size() < sizeof(magic)) {
    return absl::InvalidArgumentError(absl::StrCat(file->path(), ": not an importance matrix: ",
                                                   file->size(), " bytes"));
  }
  ODMOE_RETURN_IF_ERROR(file->ReadAt(
      0, absl::MakeSpan(reinterpret_cast<std::byte*>(magic), sizeof(magic))));
  std::unique_ptr<ImportanceMatrix> matrix(new ImportanceMatrix());
  matrix->legacy_ = std::memcmp(magic, "GGUF", sizeof(magic)) != 0;
  if (matrix->legacy_) {
    matrix->file_ = std::move(file);
    ODMOE_RETURN_IF_ERROR(matrix->IndexLegacy());
  } else {
    ODMOE_ASSIGN_OR_RETURN(matrix->gguf_, GgufReader::Open(std::move(file)));
    ODMOE_RETURN_IF_ERROR(matrix->IndexGguf());
  }
  return matrix;
}

absl::Status ImportanceMatrix::IndexGguf() {
  const GgufMetadata& metadata = gguf_->metadata();
  ODMOE_ASSIGN_OR_RETURN(const std::string type, metadata.GetStringOr("general.type", "model"));
  if (type != kImportanceType && metadata.Find(kImportanceDatasetsKey) == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        path(), ": general.type is \"", type, "\", expected \"", kImportanceType, "\""));
  }
  ODMOE_ASSIGN_OR_RETURN(const std::vector<std::string>* datasets,
                         Required(metadata.GetStrings(kImportanceDatasetsKey), path()));
  datasets_ = *datasets;
  ODMOE_ASSIGN_OR_RETURN(chunk_count_,
                         Required(metadata.GetU32(kImportanceChunkCountKey), path()));
  ODMOE_ASSIGN_OR_RETURN(chunk_size_, Required(metadata.GetU32(kImportanceChunkSizeKey), path()));
  for (const GgufTensor& tensor : gguf_->tensors()) {
    absl::string_view name = tensor.name;
    if (absl::ConsumeSuffix(&name, kSumsSuffix)) {
      ODMOE_RETURN_IF_ERROR(IndexGgufTensor(tensor, std::string(name)));
    } else if (absl::ConsumeSuffix(&name, kCountsSuffix) &&
               gguf_->Find(absl::StrCat(name, kSumsSuffix)) == nullptr) {
      return absl::DataLossError(
          absl::StrCat(path(), ": has ", tensor.name, ", but no ", name, kSumsSuffix));
    }
  }
  if (!entries_.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path(), ": has no tensor ending in ", kSumsSuffix));
}

absl::Status ImportanceMatrix::IndexGgufTensor(const GgufTensor& sums, const std::string& name) {
  const GgufTensor* counts = gguf_->Find(absl::StrCat(name, kCountsSuffix));
  if (counts == nullptr) {
    return absl::DataLossError(
        absl::StrCat(path(), ": has ", sums.name, ", but no ", name, kCountsSuffix));
  }
  if (sums.dtype != DType::kF32 || counts->dtype != DType::kF32) {
    return absl::DataLossError(absl::StrCat(path(), ": ", name, " is in ", Info(sums.dtype).name,
                                            " with counts in ", Info(counts->dtype).name,
                                            ", expected f32"));
  }
  Entry entry;
  entry.offset = gguf_->data_offset() + sums.offset;
  entry.values = sums.bytes / sizeof(float);
  const uint64_t matrices = counts->bytes / sizeof(float);
  if (matrices > kMaxMatrices || entry.values % matrices != 0) {
    return absl::DataLossError(absl::StrCat(path(), ": ", name, " has ", entry.values,
                                            " sums and ", matrices, " counts"));
  }
  std::vector<float> stored(matrices);
  ODMOE_RETURN_IF_ERROR(gguf_->ReadTensor(
      *counts, 0,
      absl::MakeSpan(reinterpret_cast<std::byte*>(stored.data()), matrices * sizeof(float))));
  for (const float count : stored) {
    if (!(count >= 0.0f && count <= 0x1p62f)) {
      return absl::DataLossError(absl::StrCat(path(), ": ", counts->name, " holds ", count));
    }
    entry.counts.push_back(std::llround(count));
  }
  entries_.emplace(name, std::move(entry));
  return absl::OkStatus();
}

absl::Status ImportanceMatrix::IndexLegacy() {
  LegacyCursor cursor(*file_);
  ODMOE_ASSIGN_OR_RETURN(const int32_t count, cursor.Int("the number of entries"));
  // Checked first because most files that are not of this form fail here.
  constexpr uint64_t kMinEntryBytes = 3 * sizeof(int32_t) + 1 + sizeof(float);
  if (count < 1 || static_cast<uint64_t>(count) > cursor.remaining() / kMinEntryBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        path(), ": neither a GGUF file nor an importance matrix in its legacy form, which would "
        "have ", count, " entries in ", file_->size(), " bytes"));
  }
  for (int32_t i = 0; i < count; ++i) {
    ODMOE_ASSIGN_OR_RETURN(std::string name, cursor.Text("a name"));
    if (name.empty()) return cursor.Corrupt(absl::StrCat("entry ", i, " has no name"));
    ODMOE_ASSIGN_OR_RETURN(const int32_t calls, cursor.Int("a number of calls"));
    ODMOE_ASSIGN_OR_RETURN(const int32_t values, cursor.Int("a number of values"));
    if (values < 1 || calls < 0) {
      return cursor.Corrupt(absl::StrCat(name, " has ", values, " values of ", calls, " calls"));
    }
    Entry entry;
    entry.offset = cursor.offset();
    entry.values = static_cast<uint64_t>(values);
    entry.counts = {calls};
    ODMOE_RETURN_IF_ERROR(cursor.Skip(entry.values * sizeof(float), name));
    if (!entries_.emplace(name, std::move(entry)).second) {
      return cursor.Corrupt(absl::StrCat(name, " is there twice"));
    }
  }
  if (cursor.remaining() == 0) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(chunk_count_, cursor.Int("the number of chunks"));
  if (chunk_count_ < 0) return cursor.Corrupt(absl::StrCat(chunk_count_, " chunks"));
  if (cursor.remaining() == 0) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(const std::string dataset, cursor.Text("the dataset's name"));
  if (!dataset.empty()) datasets_.push_back(dataset);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> ImportanceMatrix::ForTensor(absl::string_view name,
                                                               int64_t columns, int64_t matrices,
                                                               int64_t matrix) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return std::vector<float>();
  const Entry& entry = found->second;
  const auto expected = static_cast<uint64_t>(columns) * static_cast<uint64_t>(matrices);
  if (columns < 1 || matrices < 1 || matrix < 0 || matrix >= matrices ||
      static_cast<uint64_t>(columns) > entry.values || entry.values != expected) {
    if (IsEmbedding(name)) return std::vector<float>();
    return absl::InvalidArgumentError(absl::StrCat(
        path(), ": has ", entry.values, " values for ", name, ", the model ", matrices, " times ",
        columns, "; it was computed from another model"));
  }
  std::vector<float> values(columns);
  const auto first = static_cast<uint64_t>(matrix) * static_cast<uint64_t>(columns);
  ODMOE_RETURN_IF_ERROR(bytes().ReadAt(
      entry.offset + first * sizeof(float),
      absl::MakeSpan(reinterpret_cast<std::byte*>(values.data()), values.size() * sizeof(float))));
  const uint64_t part = entry.values / entry.counts.size();
  for (size_t i = 0; i < values.size(); ++i) {
    const auto count = static_cast<float>(entry.counts[(first + i) / part]);
    if (count > 0.0f) {
      values[i] /= count;
    } else if (!legacy_) {
      values[i] = 1.0f;
    }
    if (!(values[i] >= 0.0f) || !std::isfinite(values[i])) {
      return absl::DataLossError(absl::StrCat(path(), ": value ", first + i, " of ", name, " is ",
                                              values[i]));
    }
  }
  return values;
}

std::vector<std::string> ImportanceMatrix::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

const std::vector<int64_t>* ImportanceMatrix::counts(absl::string_view name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second.counts;
}

}  // namespace odmoe
