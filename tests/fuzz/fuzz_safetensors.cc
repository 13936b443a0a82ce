// A safetensors file that is accepted must be readable to its last byte.
#include "services/core/formats/safetensors.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const auto reader = SafetensorsReader::Open(FuzzFile(data, size));
  if (!reader.ok()) return 0;
  uint64_t end = (*reader)->data_offset();
  for (const SafetensorsTensor& tensor : (*reader)->tensors()) {
    Require(tensor.offset == end, "accepted tensors leave a gap or overlap");
    end += tensor.bytes;
    if (tensor.bytes == 0) continue;
    std::byte last;
    Require((*reader)->ReadTensor(tensor, tensor.bytes - 1, absl::MakeSpan(&last, 1)).ok(),
            "an accepted tensor cannot be read");
  }
  Require(end == size, "accepted tensors do not end with the file");
  return 0;
}
