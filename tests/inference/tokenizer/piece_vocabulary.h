// Small vocabularies of tokens written as text, for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "services/core/formats/gguf.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

struct TextToken {
  std::string text;
  double score = 0;
  TokenType type = TokenType::kNormal;
};

// tokenizer.ggml.{model,tokens,scores,token_type}, nothing else.
inline GgufMetadata MakeTextMetadata(const std::string& model,
                                     const std::vector<TextToken>& vocabulary) {
  std::vector<std::string> tokens;
  std::vector<double> scores;
  std::vector<int64_t> types;
  for (const TextToken& token : vocabulary) {
    tokens.push_back(token.text);
    scores.push_back(token.score);
    types.push_back(static_cast<int64_t>(token.type));
  }
  GgufMetadata metadata;
  metadata.Set("tokenizer.ggml.model", GgufValue::String(model));
  metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings(tokens));
  metadata.Set("tokenizer.ggml.scores", GgufValue::F32s(scores));
  metadata.Set("tokenizer.ggml.token_type", GgufValue::I32s(types));
  return metadata;
}

// <unk>, <s>, </s>, the 256 byte tokens from id 3, then `pieces` from id 259.
inline std::vector<TextToken> WithBytes(const std::vector<TextToken>& pieces) {
  std::vector<TextToken> vocabulary = {{"<unk>", 0, TokenType::kUnknown},
                                       {"<s>", 0, TokenType::kControl},
                                       {"</s>", 0, TokenType::kControl}};
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary.push_back({absl::StrFormat("<0x%02X>", byte), 0, TokenType::kByte});
  }
  vocabulary.insert(vocabulary.end(), pieces.begin(), pieces.end());
  return vocabulary;
}

}  // namespace odmoe
