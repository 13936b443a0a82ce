// A checkpoint's tokenizer as GGUF keys.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "converter/huggingface/checkpoint.h"
#include "converter/huggingface/token_list.h"
#include "services/core/formats/gguf.h"
#include "services/core/formats/pre_tokenizers.h"

namespace odmoe {

// What the checkpoint alone does not say.
struct TokenizerOptions {
  int64_t vocabulary_size = 0;  // tokens the model has; ids without a token become "[PAD<id>]"
  std::string pre_tokenizer;    // its name, where it should not be recognized; else empty
};

// Appends tokenizer.ggml.{model,pre,tokens,..}, the special tokens' ids, the flags whether they are
// added, and the chat template, in the order the reference converter does. The vocabulary comes
// from the first of tokenizer.model (SentencePiece, byte pairs or unigrams), tokenizer.json
// (byte-level BPE, or BPE with byte_fallback), vocab.json with merges.txt, and tiktoken.model
// (Kimi's ranks). NOT_FOUND: none of them. INVALID_ARGUMENT: another kind of tokenizer, a
// normalizer GGUF has no key for, or a pre-tokenizer we do not know; the message shows its regexes
// and how to name one. DATA_LOSS: it contradicts itself, is corrupt (with the offset), or has more
// tokens than the model.
absl::Status AddTokenizerKeys(const Checkpoint& checkpoint, const TokenizerOptions& options,
                              GgufMetadata& metadata);

// The pre-tokenizer of a parsed tokenizer.json. INVALID_ARGUMENT: unknown, see above.
absl::StatusOr<const PreTokenizer*> RecognizeTokenizerJson(const nlohmann::json& tokenizer,
                                                           const std::string& where);

// What tokenizer.ggml.pre calls rules that several names share: the reference tells them apart by
// the ids a text gets, this by tokens that only some of these vocabularies have.
absl::string_view NameOfPreTokenizer(const PreTokenizer& pre, const std::vector<AddedToken>& added);

}  // namespace odmoe
