// SentencePiece's tokenizer.model: a protocol buffer, of which this reads what a tokenizer needs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

struct SentencePiece {
  enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  std::string text;
  float score = 0;
  Type type = kNormal;
};

struct SentencePieceModel {
  enum Kind { kUnigram = 1, kBytePairs = 2, kWords = 3, kCharacters = 4 };
  std::vector<SentencePiece> pieces;  // by id
  Kind kind = kUnigram;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  std::string precompiled_charsmap;
};

// `source` names the file in messages. DATA_LOSS: not such a file, with the byte offset, what was
// expected there and what was found.
absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(absl::string_view bytes,
                                                           const std::string& source);

}  // namespace odmoe
