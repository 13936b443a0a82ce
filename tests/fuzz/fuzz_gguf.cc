// A GGUF file that is accepted must be readable to its last byte, and write the same header again
// through JSON.
#include <nlohmann/json.hpp>

#include "services/core/formats/gguf_json.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/formats/json.h"
#include "tests/fuzz/fuzz_file.h"

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
  return 0;
}
