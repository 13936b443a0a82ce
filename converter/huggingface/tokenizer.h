// A checkpoint's tokenizer as GGUF keys: byte-level BPE from tokenizer.json.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "converter/huggingface/checkpoint.h"
#include "services/core/formats/gguf.h"
#include "services/core/formats/pre_tokenizers.h"

namespace odmoe {

// What the checkpoint alone does not say.
struct TokenizerOptions {
  int64_t vocabulary_size = 0;  // tokens the model has; ids without a token become "[PAD<id>]"
  std::string pre_tokenizer;    // its name, where it should not be recognized; else empty
};

// Appends tokenizer.ggml.{model,pre,tokens,token_type,merges}, the special tokens' ids, the flags
// whether they are added, and the chat template, in the order the reference converter does.
// NOT_FOUND: no tokenizer.json. INVALID_ARGUMENT: not byte-level BPE, or a pre-tokenizer we do not
// know; the message shows its regexes and how to name one. DATA_LOSS: it contradicts itself.
absl::Status AddTokenizerKeys(const Checkpoint& checkpoint, const TokenizerOptions& options,
                              GgufMetadata& metadata);

// The pre-tokenizer of a parsed tokenizer.json. INVALID_ARGUMENT: unknown, see above.
absl::StatusOr<const PreTokenizer*> RecognizeTokenizerJson(const nlohmann::json& tokenizer,
                                                           const std::string& where);

}  // namespace odmoe
