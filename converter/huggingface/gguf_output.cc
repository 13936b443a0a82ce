#include "converter/huggingface/gguf_output.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "converter/huggingface/tensor_ranges.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// What an interruption costs at most, and enough for several workers to share one huge tensor.
constexpr uint64_t kItemBytes = 32 * kMiB;

// A file of the output and the plan's tensors in it.
struct Shard {
  GgufHeader header;
  size_t first_tensor = 0;
};

GgufValue U16(uint64_t value) { return {.type = GgufType::kU16, .scalar = value}; }

absl::StatusOr<std::vector<Shard>> CutIntoShards(const GgufPlan& gguf, uint64_t max_bytes) {
  std::vector<Shard> shards(1);
  uint64_t bytes = 0;
  for (size_t i = 0; i < gguf.tensors.size(); ++i) {
    const GgufTensor& tensor = gguf.header.tensors[i];
    const bool full = bytes > max_bytes || tensor.bytes > max_bytes - bytes;
    if (max_bytes > 0 && full && !shards.back().header.tensors.empty()) {
      shards.push_back({.first_tensor = i});
      bytes = 0;
    }
    bytes += tensor.bytes;
    shards.back().header.tensors.push_back(tensor);
  }
  if (shards.size() > std::numeric_limits<uint16_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shards of at most ", max_bytes, " bytes would be ", shards.size(), "; GGUF allows ",
        std::numeric_limits<uint16_t>::max()));
  }
  shards[0].header.metadata = gguf.header.metadata;
  for (size_t i = 0; i < shards.size(); ++i) {
    GgufHeader& header = shards[i].header;
    header.version = gguf.header.version;
    if (shards.size() > 1) {
      header.metadata.Set("split.no", U16(i));
      header.metadata.Set("split.count", U16(shards.size()));
      header.metadata.Set("split.tensors.count",
                          GgufValue::I32(static_cast<int32_t>(gguf.tensors.size())));
    }
    ODMOE_RETURN_IF_ERROR(LayOutGgufTensors(header));
  }
  return shards;
}

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

absl::StatusOr<OutputFile> PlanShard(const GgufPlan& gguf, const Shard& shard, std::string path) {
  OutputFile file{.path = std::move(path)};
  ODMOE_ASSIGN_OR_RETURN(std::string header, EncodeGgufHeader(shard.header));
  const uint64_t data_offset = header.size();
  file.bytes = data_offset;
  file.header = std::make_shared<const std::string>(std::move(header));
  for (size_t i = 0; i < shard.header.tensors.size(); ++i) {
    const GgufTensor& tensor = shard.header.tensors[i];
    ODMOE_RETURN_IF_ERROR(
        AddItems(gguf.tensors[shard.first_tensor + i], data_offset + tensor.offset, file));
    file.bytes = data_offset + RoundUp(tensor.offset + tensor.bytes, kDefaultGgufAlignment);
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
  ODMOE_ASSIGN_OR_RETURN(const std::vector<Shard> shards, CutIntoShards(gguf, split_max_bytes));
  const absl::string_view prefix = absl::StripSuffix(path, ".gguf");
  for (size_t i = 0; i < shards.size(); ++i) {
    std::string shard_path =
        shards.size() == 1 ? path
                           : absl::StrFormat("%s-%05d-of-%05d.gguf", prefix, i + 1, shards.size());
    ODMOE_ASSIGN_OR_RETURN(OutputFile file, PlanShard(gguf, shards[i], std::move(shard_path)));
    plan.files.push_back(std::move(file));
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
