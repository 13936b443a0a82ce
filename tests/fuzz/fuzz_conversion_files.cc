// The smaller files that decide a conversion; the input's first byte says which one the rest is:
// 't' a tensor map, 'k' a file of keys, 'a' an adapter's adapter_config.json, 'm' merges.txt.
#include <string>

#include "converter/huggingface/checkpoint.h"
#include "converter/huggingface/lora.h"
#include "converter/huggingface/metadata_overrides.h"
#include "converter/huggingface/tensor_map.h"
#include "converter/huggingface/tokenizer.h"
#include "services/core/formats/gguf_writer.h"
#include "tests/fuzz/fuzz_file.h"
#include "tests/fuzz/memory_checkpoint.h"

namespace odmoe {
namespace {

// One F32 tensor of a number, twice.
constexpr char kWeights[] =
    R"({"a.0.b.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
    R"("a.1.b.weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}  )";

void FuzzTensorMap(MemoryCheckpoint& files, const std::string& text) {
  files.Add("map", text);
  std::string weights(8, '\0');
  weights[0] = static_cast<char>(sizeof(kWeights) - 1);
  files.Add("model.safetensors", weights + kWeights + std::string(8, '\0'));
  const auto map = TensorMap::Read(files, std::string(MemoryCheckpoint::kFolder) + "/map");
  if (!map.ok()) return;
  const auto checkpoint = Checkpoint::Open(files, MemoryCheckpoint::kFolder);
  Require(checkpoint.ok(), "the weights cannot be read");
  const auto tensors = map->Map(**checkpoint);
  if (!tensors.ok()) return;
  for (const OutputTensor& tensor : *tensors) {
    Require(!tensor.info.name.empty() && tensor.info.name.size() < 64, "a name GGUF cannot have");
  }
}

void FuzzKeys(MemoryCheckpoint& files, const std::string& text) {
  files.Add("keys", text);
  const auto overrides =
      ReadMetadataOverrides(files, {std::string(MemoryCheckpoint::kFolder) + "/keys"});
  if (!overrides.ok()) return;
  GgufHeader header;
  header.metadata.Set("general.architecture", GgufValue::String("llama"));
  header.metadata.Set("llama.block_count", GgufValue::U32(2));
  if (!ApplyMetadataOverrides(*overrides, header.metadata).ok()) return;
  // What is refused at this point is a key or value too long for the format.
  EncodeGgufHeader(header).status().IgnoreError();
}

void FuzzAdapter(MemoryCheckpoint& files, const std::string& text) {
  files.Add("adapter_config.json", text);
  files.Add("adapter_model.safetensors", std::string("\2\0\0\0\0\0\0\0{}", 10));
  files.Add("config.json", R"({"architectures":["LlamaForCausalLM"],"vocab_size":8,)"
                           R"("hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,)"
                           R"("num_attention_heads":1,"max_position_embeddings":8,)"
                           R"("rms_norm_eps":1e-5})");
  const auto plan = PlanLora(files, {.folder = MemoryCheckpoint::kFolder,
                                     .base_model = MemoryCheckpoint::kFolder});
  Require(!plan.ok(), "an adapter without weights was planned");
}

void FuzzMerges(MemoryCheckpoint& files, const std::string& text) {
  files.Add("merges.txt", text);
  files.Add("vocab.json", R"({"a":0,"b":1,"ab":2})");
  const auto checkpoint = Checkpoint::Open(files, MemoryCheckpoint::kFolder);
  GgufMetadata metadata;
  AddTokenizerKeys(**checkpoint, {.vocabulary_size = 8, .pre_tokenizer = "gpt-2"}, metadata)
      .IgnoreError();
}

}  // namespace
}  // namespace odmoe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  MemoryCheckpoint files;
  switch (data[0]) {
    case 't': FuzzTensorMap(files, text); break;
    case 'k': FuzzKeys(files, text); break;
    case 'a': FuzzAdapter(files, text); break;
    case 'm': FuzzMerges(files, text); break;
    default: break;
  }
  return 0;
}
