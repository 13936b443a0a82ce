// A GGUF file that is accepted must be readable to its last byte, write the same header again
// through JSON, and be split, if at all, into ranges of its tensors that miss none.
#include <string_view>

#include <nlohmann/json.hpp>

#include "converter/split/split.h"
#include "services/core/formats/gguf_json.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/formats/json.h"
#include "tests/fuzz/fuzz_file.h"
#include "tests/fuzz/memory_checkpoint.h"

namespace odmoe {
namespace {

void CheckSplit(const uint8_t* data, size_t size) {
  MemoryCheckpoint files;  // where no other shard is
  const auto model = GgufModel::Open(files, FuzzFile(data, size));
  if (!model.ok()) return;
  (*model)->ReadPadding().status().IgnoreError();
  Require((*model)->MergedBytes().ok(), "an accepted model has no size");
  const auto plan = PlanSplit(**model);
  if (!plan.ok()) return;
  uint64_t bytes = 0;
  for (const SplitBaseFile& file : plan->base_files) {
    for (const GgufTensor* tensor : file.tensors) bytes += tensor->bytes;
  }
  for (const GgufExpertLayer& layer : plan->layers) {
    uint64_t expert_bytes = 0;
    for (const GgufExpertPart& part : layer.parts) {
      Require(part.bytes == layer.layout.part(part.part).bytes, "a part of another size");
      expert_bytes += part.bytes;
      for (int32_t expert : {0, layer.expert_count - 1}) {
        const GgufExtent extent = part.Extent(expert);
        Require(extent.offset <= extent.tensor->bytes &&
                    extent.bytes <= extent.tensor->bytes - extent.offset,
                "an expert outside its tensor");
      }
    }
    Require(expert_bytes == layer.layout.bytes, "an expert of another size");
    bytes += expert_bytes * static_cast<uint64_t>(layer.expert_count);
  }
  Require(bytes == plan->data_bytes, "a split that loses bytes");
}

}  // namespace
}  // namespace odmoe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const auto reader = GgufReader::Open(FuzzFile(data, size));
  if (!reader.ok()) return 0;
  for (const GgufTensor& tensor : (*reader)->tensors()) {
    std::byte last;
    Require((*reader)->ReadTensor(tensor, tensor.bytes - 1, absl::MakeSpan(&last, 1)).ok(),
            "an accepted tensor cannot be read");
  }
  const auto json = ParseJson(EncodeGgufMetadata((*reader)->metadata()), "input");
  Require(json.ok(), "metadata was written as JSON that does not parse");
  const auto metadata = DecodeGgufMetadata(*json, "input");
  Require(metadata.ok(), "metadata was written as JSON that is refused");
  GgufHeader header{.metadata = *metadata,
                    .tensors = (*reader)->tensors(),
                    .version = (*reader)->version()};
  Require(LayOutGgufTensors(header).ok(), "an accepted header cannot be laid out again");
  const auto text = EncodeGgufHeader(header);
  Require(text.ok(), "an accepted header cannot be written again");
  // Padding may hold anything, so only what comes before it is compared.
  Require(text->size() == (*reader)->data_offset(), "the header came back with another size");
  size_t end = text->size();
  while (end > 0 && (*text)[end - 1] == '\0') --end;
  Require(end <= size && std::string_view(reinterpret_cast<const char*>(data), end) ==
                             std::string_view(*text).substr(0, end),
          "the header came back changed");
  CheckSplit(data, size);
  return 0;
}
