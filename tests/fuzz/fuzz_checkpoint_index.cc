// model.safetensors.index.json beside two small parts. What is accepted has the tensors it lists.
#include <string>

#include "converter/huggingface/checkpoint.h"
#include "services/core/formats/safetensors.h"
#include "tests/fuzz/fuzz_file.h"
#include "tests/fuzz/memory_checkpoint.h"

namespace odmoe {
namespace {

std::string Part(const std::string& tensor) {
  std::vector<SafetensorsTensor> tensors = {
      {.name = tensor, .dtype = "F32", .shape = {1}, .bytes = 4}};
  return EncodeSafetensorsHeader(tensors, {}, 8).value() + "1234";
}

}  // namespace
}  // namespace odmoe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  MemoryCheckpoint files;
  files.Add("config.json", "{}");
  files.Add("part-1.safetensors", Part("a"));
  files.Add("part-2.safetensors", Part("b"));
  files.Add("model.safetensors.index.json",
            std::string(reinterpret_cast<const char*>(data), size));
  const auto checkpoint = Checkpoint::Open(files, MemoryCheckpoint::kFolder);
  if (!checkpoint.ok()) return 0;
  for (const CheckpointTensor& tensor : (*checkpoint)->tensors()) {
    std::byte bytes[4];
    Require(tensor.file->ReadTensor(*tensor.stored, 0, absl::MakeSpan(bytes)).ok(),
            "an accepted tensor cannot be read");
  }
  return 0;
}
