#include "converter/gguf_shards.h"

#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/gguf_model.h"

namespace odmoe {
namespace {

GgufValue U16(uint64_t value) { return {.type = GgufType::kU16, .scalar = value}; }

}  // namespace

std::vector<size_t> CountTensorsBySize(absl::Span<const GgufTensor> tensors, uint64_t max_bytes) {
  std::vector<size_t> counts = {0};
  uint64_t bytes = 0;
  for (const GgufTensor& tensor : tensors) {
    const bool full = bytes > max_bytes || tensor.bytes > max_bytes - bytes;
    if (max_bytes > 0 && full && counts.back() > 0) {
      counts.push_back(0);
      bytes = 0;
    }
    bytes += tensor.bytes;
    ++counts.back();
  }
  return counts;
}

absl::StatusOr<std::vector<GgufShard>> CutIntoShards(const GgufHeader& header,
                                                     absl::Span<const size_t> counts,
                                                     const std::string& path) {
  if (counts.size() > std::numeric_limits<uint16_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("the shards of ", path, " would be ",
                                                   counts.size(), "; GGUF allows ",
                                                   std::numeric_limits<uint16_t>::max()));
  }
  const absl::string_view prefix = absl::StripSuffix(path, ".gguf");
  std::vector<GgufShard> shards;
  size_t first = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    GgufShard& shard = shards.emplace_back();
    shard.path = counts.size() == 1
                     ? path
                     : absl::StrFormat("%s-%05d-of-%05d.gguf", prefix, i + 1, counts.size());
    shard.first_tensor = first;
    shard.header.version = header.version;
    if (i == 0) shard.header.metadata = header.metadata;
    const auto begin = header.tensors.begin() + static_cast<ptrdiff_t>(first);
    shard.header.tensors.assign(begin, begin + static_cast<ptrdiff_t>(counts[i]));
    first += counts[i];
    if (counts.size() > 1) {
      shard.header.metadata.Set(kGgufSplitNumberKey, U16(i));
      shard.header.metadata.Set(kGgufSplitCountKey, U16(counts.size()));
      shard.header.metadata.Set(kGgufSplitTensorsKey,
                                GgufValue::I32(static_cast<int32_t>(header.tensors.size())));
    }
    ODMOE_RETURN_IF_ERROR(LayOutGgufTensors(shard.header));
  }
  return shards;
}

absl::StatusOr<OutputFile> PlanGgufFile(const GgufShard& shard) {
  OutputFile file{.path = shard.path};
  ODMOE_ASSIGN_OR_RETURN(std::string header, EncodeGgufHeader(shard.header));
  ODMOE_ASSIGN_OR_RETURN(const uint32_t alignment,
                         shard.header.metadata.GetU32Or(kGgufAlignmentKey, kDefaultGgufAlignment));
  file.bytes = header.size();
  if (!shard.header.tensors.empty()) {
    const GgufTensor& last = shard.header.tensors.back();
    file.bytes += RoundUp(last.offset + last.bytes, alignment);
  }
  file.header = std::make_shared<const std::string>(std::move(header));
  return file;
}

}  // namespace odmoe
