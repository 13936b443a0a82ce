#include "converter/evaluate/logits_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr char kLogitsMagic[8] = {'_', 'l', 'o', 'g', 'i', 't', 's', '_'};
constexpr uint64_t kFixedBytes = sizeof(kLogitsMagic) + 3 * sizeof(int32_t);
constexpr int32_t kMaxChunkTokens = 1 << 24;
constexpr int32_t kMaxVocabularyTokens = 1 << 24;
constexpr float kRange = -kLogitsFileFloor;
constexpr float kMaxCode = 65535.0f;

uint64_t RowBytesOf(int32_t vocabulary) {
  const auto even = static_cast<uint64_t>(vocabulary) + static_cast<uint64_t>(vocabulary) % 2;
  return 2 * sizeof(float) + even * sizeof(uint16_t);
}

absl::Status CheckHeader(const LogitsFileHeader& header, const std::string& path) {
  if (header.chunk_tokens < 3 || header.chunk_tokens > kMaxChunkTokens || header.vocabulary < 1 ||
      header.vocabulary > kMaxVocabularyTokens || header.chunks < 1) {
    return absl::DataLossError(absl::StrCat(path, ": ", header.chunks, " chunks of ",
                                            header.chunk_tokens, " tokens out of ",
                                            header.vocabulary, " cannot be"));
  }
  return absl::OkStatus();
}

absl::Status CheckTokens(const LogitsFileHeader& header, const std::string& path) {
  for (size_t i = 0; i < header.tokens.size(); ++i) {
    if (header.tokens[i] < 0 || header.tokens[i] >= header.vocabulary) {
      return absl::DataLossError(absl::StrCat(path, ": token ", i, " is ", header.tokens[i],
                                              ", the vocabulary has ", header.vocabulary));
    }
  }
  return absl::OkStatus();
}

template <typename T>
absl::Span<std::byte> BytesOf(T* values, size_t count) {
  return absl::MakeSpan(reinterpret_cast<std::byte*>(values), count * sizeof(T));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LogitsFile>> LogitsFile::Open(
    std::unique_ptr<RandomAccessFile> file) {
  const std::string& path = file->path();
  char magic[sizeof(kLogitsMagic)] = {};
  if (file->size() >= kFixedBytes) {
    ODMOE_RETURN_IF_ERROR(file->ReadAt(0, BytesOf(magic, sizeof(magic))));
  }
  if (std::memcmp(magic, kLogitsMagic, sizeof(magic)) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a file of log-probabilities: it does not start with _logits_"));
  }
  int32_t sizes[3];
  ODMOE_RETURN_IF_ERROR(file->ReadAt(sizeof(magic), BytesOf(sizes, 3)));
  std::unique_ptr<LogitsFile> logits(new LogitsFile());
  logits->header_ = {sizes[0], sizes[1], sizes[2], {}};
  LogitsFileHeader& header = logits->header_;
  ODMOE_RETURN_IF_ERROR(CheckHeader(header, path));
  // A chunk takes less than 2^50 bytes and there are less than 2^31, so this is as far as it goes.
  logits->row_bytes_ = RowBytesOf(header.vocabulary);
  const auto chunks = static_cast<unsigned __int128>(header.chunks);
  const auto tokens = chunks * static_cast<uint64_t>(header.chunk_tokens);
  const auto rows = chunks * static_cast<uint64_t>(ScoredPositionsOf(header.chunk_tokens).count);
  if (kFixedBytes + tokens * sizeof(TokenId) + rows * logits->row_bytes_ != file->size()) {
    return absl::DataLossError(absl::StrCat(
        path, ": has ", file->size(), " bytes, which is not what ", header.chunks, " chunks of ",
        header.chunk_tokens, " tokens out of ", header.vocabulary, " take"));
  }
  logits->data_offset_ = kFixedBytes + static_cast<uint64_t>(tokens) * sizeof(TokenId);
  header.tokens.resize(static_cast<size_t>(tokens));
  ODMOE_RETURN_IF_ERROR(
      file->ReadAt(kFixedBytes, BytesOf(header.tokens.data(), header.tokens.size())));
  ODMOE_RETURN_IF_ERROR(CheckTokens(header, path));
  logits->file_ = std::move(file);
  return logits;
}

absl::Status LogitsFile::ReadRow(int64_t chunk, int64_t position, absl::Span<float> out) const {
  const ScoredPositions scored = ScoredPositionsOf(header_.chunk_tokens);
  const auto row = static_cast<uint64_t>(chunk * scored.count + position);
  const uint64_t offset = data_offset_ + row * row_bytes_;
  float bounds[2];  // scale, least
  std::vector<uint16_t> codes(header_.vocabulary);
  ODMOE_RETURN_IF_ERROR(file_->ReadAt(offset, BytesOf(bounds, 2)));
  ODMOE_RETURN_IF_ERROR(
      file_->ReadAt(offset + sizeof(bounds), BytesOf(codes.data(), codes.size())));
  const float last = bounds[0] * kMaxCode + bounds[1];
  if (!std::isfinite(last) || !(bounds[0] >= 0.0f)) {
    return absl::DataLossError(absl::StrCat(file_->path(), ": at offset ", offset, ": a row from ",
                                            bounds[1], " in steps of ", bounds[0]));
  }
  for (size_t i = 0; i < codes.size(); ++i) {
    out[i] = bounds[0] * static_cast<float>(codes[i]) + bounds[1];
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<LogitsFileWriter>> LogitsFileWriter::Create(
    FileSystem& fs, const std::string& path, const LogitsFileHeader& header) {
  ODMOE_RETURN_IF_ERROR(CheckHeader(header, path));
  std::unique_ptr<LogitsFileWriter> writer(new LogitsFileWriter());
  writer->rows_left_ = header.chunks * ScoredPositionsOf(header.chunk_tokens).count;
  writer->row_.resize(RowBytesOf(header.vocabulary));
  ODMOE_ASSIGN_OR_RETURN(writer->file_, AtomicFile::Create(fs, path));
  WritableFile& file = writer->file_->file();
  const int32_t sizes[] = {header.chunk_tokens, header.vocabulary, header.chunks};
  ODMOE_RETURN_IF_ERROR(file.Append(absl::string_view(kLogitsMagic, sizeof(kLogitsMagic))));
  ODMOE_RETURN_IF_ERROR(file.Append(BytesOf(const_cast<int32_t*>(sizes), 3)));
  ODMOE_RETURN_IF_ERROR(file.Append(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(header.tokens.data()),
      header.tokens.size() * sizeof(TokenId))));
  return writer;
}

// In floats and in this order throughout, so that equal logits give the reference tool's bytes.
absl::Status LogitsFileWriter::Append(absl::Span<const float> logits) {
  if (rows_left_ == 0) return absl::FailedPreconditionError("more rows than the file has");
  --rows_left_;
  const auto [low, high] = std::minmax_element(logits.begin(), logits.end());
  const float max = *high;
  const float min = std::max(*low, max - kRange);
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - max);
  const auto log_sum = static_cast<float>(std::log(sum));
  const float bounds[] = {(max - min) / kMaxCode, min - max - log_sum};
  std::fill(row_.begin(), row_.end(), std::byte{0});
  std::memcpy(row_.data(), bounds, sizeof(bounds));
  if (bounds[0] > 0.0f) {
    const float inverse = 1.0f / bounds[0];
    for (size_t i = 0; i < logits.size(); ++i) {
      if (!(logits[i] > min)) continue;
      const auto code = static_cast<uint16_t>(
          std::min(kMaxCode, std::nearbyint(inverse * (logits[i] - min))));
      std::memcpy(row_.data() + sizeof(bounds) + i * sizeof(code), &code, sizeof(code));
    }
  }
  return file_->file().Append(absl::MakeConstSpan(row_));
}

absl::Status LogitsFileWriter::Finish() {
  if (rows_left_ != 0) {
    return absl::FailedPreconditionError(absl::StrCat(rows_left_, " rows are missing"));
  }
  return file_->Commit();
}

}  // namespace odmoe
