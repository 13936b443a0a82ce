// The families of tokenizers, by tokenizer.ggml.model:
//
//   gpt2, gemma4, whitespace   byte-pair encoding with listed merges (byte_pair_encoder.h)
//   llama                      SentencePiece's byte-pair encoding (sentencepiece_bpe.h)
//   t5                         SentencePiece's unigram model (unigram.h)
//   bert                       WordPiece (wordpiece.h)
//   rwkv                       the longest token (longest_match.h)
//   plamo2                     a lattice from the end (plamo_lattice.h)
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/core/formats/gguf.h"
#include "services/inference/tokenizer/fragment_encoder.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

struct TokenizerParts {
  Vocabulary vocabulary;
  std::unique_ptr<FragmentEncoder> encoder;
  bool drops_first_space = false;  // a text's tokens begin with a space that the text has not
};

// INVALID_ARGUMENT: a key is missing, of another type or contradicts another.
// UNIMPLEMENTED: a tokenizer model or pre-tokenizer that is not known.
absl::StatusOr<TokenizerParts> MakeTokenizerParts(const GgufMetadata& metadata);

}  // namespace odmoe
