// tokenizer.json and tokenizer_config.json of a checkpoint; the input is both, after one another,
// with a line of "---" between.
#include <string>

#include "converter/huggingface/checkpoint.h"
#include "converter/huggingface/tokenizer.h"
#include "tests/fuzz/memory_checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t cut = text.find("\n---\n");
  MemoryCheckpoint files;
  files.Add("tokenizer.json", text.substr(0, cut));
  if (cut != std::string::npos) files.Add("tokenizer_config.json", text.substr(cut + 5));
  const auto checkpoint = Checkpoint::Open(files, MemoryCheckpoint::kFolder);
  GgufMetadata metadata;
  AddTokenizerKeys(**checkpoint, {.vocabulary_size = 64}, metadata).IgnoreError();
  return 0;
}
