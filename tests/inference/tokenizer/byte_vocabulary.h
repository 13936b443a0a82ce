// A small byte-level vocabulary for tests: every byte, some merges, some special tokens.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "services/core/formats/gguf.h"
#include "services/core/formats/byte_characters.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

struct ByteVocabulary {
  std::string pre = "gpt-2";
  std::vector<std::string> merges;  // "left right", of tokens that are there by then
  std::vector<std::pair<std::string, TokenType>> special;
};

// Token b is byte b; then each merge's whole; then the special tokens.
inline GgufMetadata MakeMetadata(const ByteVocabulary& vocabulary) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(CharacterOfByte(static_cast<uint8_t>(byte)));
  }
  for (const std::string& merge : vocabulary.merges) {
    std::string whole = merge;
    whole.erase(whole.find(' ', 1), 1);
    tokens.push_back(whole);
  }
  std::vector<int64_t> types(tokens.size(), static_cast<int64_t>(TokenType::kNormal));
  for (const auto& [name, type] : vocabulary.special) {
    tokens.push_back(name);
    types.push_back(static_cast<int64_t>(type));
  }
  GgufMetadata metadata;
  metadata.Set("tokenizer.ggml.model", GgufValue::String("gpt2"));
  metadata.Set("tokenizer.ggml.pre", GgufValue::String(vocabulary.pre));
  metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings(tokens));
  metadata.Set("tokenizer.ggml.token_type", GgufValue::I32s(types));
  metadata.Set("tokenizer.ggml.merges", GgufValue::Strings(vocabulary.merges));
  return metadata;
}

}  // namespace odmoe
