#include "converter/huggingface/gguf_output.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "converter/gguf_shards.h"
#include "converter/huggingface/tensor_ranges.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// What an interruption costs at most, and enough for several workers to share one huge tensor.
constexpr uint64_t kItemBytes = 32 * kMiB;

absl::Status AddItems(const OutputTensor& tensor, uint64_t offset, OutputFile& file) {
  ODMOE_ASSIGN_OR_RETURN(std::vector<OutputTensor> cuts, CutTensor(tensor, kItemBytes));
  for (OutputTensor& cut : cuts) {
    OutputItem item{.name = tensor.info.name, .offset = offset};
    offset += cut.info.bytes;
    const uint64_t bytes = cut.info.bytes;
    item.parts.push_back(
        {.bytes = bytes, .make = [cut = std::move(cut)](const ByteSink& sink) {
           return StreamTensor(cut, sink);
         }});
    file.items.push_back(std::move(item));
  }
  return absl::OkStatus();
}

absl::StatusOr<OutputFile> PlanShard(const GgufPlan& gguf, const GgufShard& shard) {
  ODMOE_ASSIGN_OR_RETURN(OutputFile file, PlanGgufFile(shard));
  for (size_t i = 0; i < shard.header.tensors.size(); ++i) {
    const uint64_t offset = file.header->size() + shard.header.tensors[i].offset;
    ODMOE_RETURN_IF_ERROR(AddItems(gguf.tensors[shard.first_tensor + i], offset, file));
  }
  return file;
}

class PlannedGguf : public RandomAccessFile {
 public:
  PlannedGguf(const GgufPlan& gguf, std::string path, std::string header)
      : gguf_(gguf), path_(std::move(path)), header_(std::move(header)) {}

  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const override {
    if (offset > size() || out.size() > size() - offset) {
      return absl::OutOfRangeError(absl::StrCat(path_, ": cannot read ", out.size(),
                                                " bytes at offset ", offset, ": the file has ",
                                                size(), " bytes"));
    }
    std::fill(out.begin(), out.end(), std::byte{0});  // padding
    const uint64_t end = offset + out.size();
    if (offset < header_.size()) {
      std::memcpy(out.data(), header_.data() + offset,
                  std::min<uint64_t>(end, header_.size()) - offset);
    }
    const std::vector<GgufTensor>& tensors = gguf_.header.tensors;
    const auto ends_before = [&](const GgufTensor& tensor, uint64_t at) {
      return header_.size() + tensor.offset + tensor.bytes <= at;
    };
    auto tensor = std::lower_bound(tensors.begin(), tensors.end(), offset, ends_before);
    for (; tensor != tensors.end(); ++tensor) {
      const uint64_t begin = header_.size() + tensor->offset;
      if (begin >= end) break;
      const uint64_t from = std::max(begin, offset), to = std::min(begin + tensor->bytes, end);
      ODMOE_RETURN_IF_ERROR(ReadTensorRange(gguf_.tensors[tensor - tensors.begin()], from - begin,
                                            out.subspan(from - offset, to - from)));
    }
    return absl::OkStatus();
  }

  uint64_t size() const override { return gguf_.file_bytes; }
  const std::string& path() const override { return path_; }

 private:
  const GgufPlan& gguf_;
  const std::string path_;
  const std::string header_;
};

}  // namespace

std::vector<const RandomAccessFile*> WeightFiles(const Checkpoint& checkpoint) {
  std::vector<const RandomAccessFile*> files;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    const RandomAccessFile* file = &tensor.file->file();
    // Tensors come file by file.
    if (files.empty() || files.back() != file) files.push_back(file);
  }
  return files;
}

absl::StatusOr<OutputPlan> PlanGgufOutput(const GgufPlan& gguf, const std::string& path,
                                          uint64_t split_max_bytes, absl::string_view options) {
  OutputPlan plan{.destination = path, .journal_path = JournalPath(path, /*is_file=*/true)};
  const std::vector<size_t> counts = CountTensorsBySize(gguf.header.tensors, split_max_bytes);
  ODMOE_ASSIGN_OR_RETURN(const std::vector<GgufShard> shards,
                         CutIntoShards(gguf.header, counts, path));
  for (const GgufShard& shard : shards) {
    ODMOE_ASSIGN_OR_RETURN(plan.files.emplace_back(), PlanShard(gguf, shard));
  }
  ODMOE_RETURN_IF_ERROR(SetFingerprint(plan, options, WeightFiles(*gguf.checkpoint)));
  return plan;
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenPlannedGguf(const GgufPlan& gguf,
                                                                  std::string path) {
  ODMOE_ASSIGN_OR_RETURN(std::string header, EncodeGgufHeader(gguf.header));
  return std::make_unique<PlannedGguf>(gguf, std::move(path), std::move(header));
}

}  // namespace odmoe
