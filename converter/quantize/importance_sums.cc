#include "converter/quantize/importance_sums.h"

#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "converter/quantize/importance_matrix.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/gguf_writer.h"

namespace odmoe {
namespace {

GgufTensor F32Tensor(std::string name, int64_t columns, int64_t rows) {
  GgufTensor tensor;
  tensor.name = std::move(name);
  tensor.dtype = DType::kF32;
  tensor.ne = {columns};
  if (rows > 1) tensor.ne.push_back(rows);  // ggml drops trailing ones
  return tensor;
}

absl::Status AppendFloats(GgufWriter& writer, absl::Span<const float> values) {
  return writer.Append(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                                           values.size() * sizeof(float)));
}

}  // namespace

void ImportanceSums::OnInput(const ProductInput& input) {
  const bool wanted = absl::StartsWith(input.tensor, "blk.") ||
                      (with_output_ && input.tensor == "output.weight");
  if (!wanted || !status_.ok()) return;
  auto found = entries_.find(input.tensor);
  if (found == entries_.end()) {
    Entry entry;
    entry.columns = input.columns;
    entry.sums.resize(input.columns * input.matrices);
    entry.counts.resize(input.routed ? input.matrices : 1);
    found = entries_.emplace(std::string(input.tensor), std::move(entry)).first;
  }
  Entry& entry = found->second;
  if (entry.columns != input.columns ||
      entry.sums.size() != static_cast<size_t>(input.columns * input.matrices)) {
    status_ =
        absl::InternalError(absl::StrCat(input.tensor, " changed its size while it was used"));
    return;
  }
  // Summed among themselves first: a long text's sum would swallow a single small square.
  squares_.assign(input.columns, 0.0f);
  for (const float* row : input.rows) {
    for (int64_t c = 0; c < input.columns; ++c) squares_[c] += row[c] * row[c];
  }
  float* sums = entry.sums.data() + input.matrix * input.columns;
  for (int64_t c = 0; c < input.columns; ++c) {
    sums[c] += squares_[c];
    if (!std::isfinite(sums[c])) {
      status_ = absl::DataLossError(absl::StrCat("an input of ", input.tensor, ", column ", c,
                                                 ", is not a number or too large to square"));
      return;
    }
  }
  // Every head sees every token, which counts once.
  if (input.routed) {
    entry.counts[input.matrix] += static_cast<int64_t>(input.rows.size());
  } else if (input.matrix == 0) {
    entry.counts[0] += static_cast<int64_t>(input.rows.size());
  }
}

std::map<std::string, int64_t> ImportanceSums::UnseenExperts() const {
  std::map<std::string, int64_t> unseen;
  for (const auto& [name, entry] : entries_) {
    for (const int64_t count : entry.counts) {
      if (count == 0) ++unseen[name];
    }
  }
  return unseen;
}

absl::Status ImportanceSums::Write(FileSystem& fs, const std::string& path,
                                   const ImportanceOrigin& origin) const {
  ODMOE_RETURN_IF_ERROR(status_);
  if (entries_.empty()) {
    return absl::FailedPreconditionError("no products were seen: the importance matrix is empty");
  }
  GgufHeader header;
  header.metadata.Set("general.type", GgufValue::String(kImportanceType));
  header.metadata.Set(kImportanceDatasetsKey, GgufValue::Strings(origin.datasets));
  header.metadata.Set(kImportanceChunkCountKey, GgufValue::U32(origin.chunk_count));
  header.metadata.Set(kImportanceChunkSizeKey, GgufValue::U32(origin.chunk_size));
  for (const auto& [name, entry] : entries_) {
    const auto matrices = static_cast<int64_t>(entry.counts.size());
    const auto values = static_cast<int64_t>(entry.sums.size());
    header.tensors.push_back(F32Tensor(name + ".in_sum2", values / matrices, matrices));
    header.tensors.push_back(F32Tensor(name + ".counts", 1, matrices));
  }
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> file, AtomicFile::Create(fs, path));
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<GgufWriter> writer,
                         GgufWriter::Create(file->file(), std::move(header)));
  for (const auto& [name, entry] : entries_) {
    ODMOE_RETURN_IF_ERROR(AppendFloats(*writer, entry.sums));
    ODMOE_RETURN_IF_ERROR(
        AppendFloats(*writer, std::vector<float>(entry.counts.begin(), entry.counts.end())));
  }
  ODMOE_RETURN_IF_ERROR(writer->Finish());
  return file->Commit();
}

}  // namespace odmoe
