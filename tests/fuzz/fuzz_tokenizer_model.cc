// SentencePiece's tokenizer.model of a checkpoint.
#include <string>

#include "converter/huggingface/checkpoint.h"
#include "converter/huggingface/tokenizer.h"
#include "tests/fuzz/memory_checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  MemoryCheckpoint files;
  files.Add("tokenizer.model", std::string(reinterpret_cast<const char*>(data), size));
  const auto checkpoint = Checkpoint::Open(files, MemoryCheckpoint::kFolder);
  GgufMetadata metadata;
  AddTokenizerKeys(**checkpoint, {.vocabulary_size = 64}, metadata).IgnoreError();
  return 0;
}
