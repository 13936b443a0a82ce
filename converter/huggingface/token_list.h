// A vocabulary on its way into GGUF: every id's text, type and score.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// tokenizer.ggml.token_type, by number.
enum class GgufTokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// A token outside the vocabulary proper.
struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool special = false;
};

// Every id up to the model's vocabulary size. Ids that get no token become "[PAD<id>]", unused, of
// score -10000. Owned by one thread at a time.
class TokenList {
 public:
  // `where` names the tokenizer's file in messages.
  TokenList(int64_t size, std::string where);

  int64_t size() const { return static_cast<int64_t>(texts_.size()); }
  const std::string& where() const { return where_; }

  // DATA_LOSS: the id is not below the size, or taken.
  absl::Status Add(int64_t id, std::string text, GgufTokenType type, float score = 0);
  // Takes the id from what has it. A token that is special, or looks so, is control; another is
  // user-defined and matched in the text itself, where a space is a space. DATA_LOSS: as Add.
  absl::Status AddAdded(const AddedToken& token, float score = 0);
  // As Add, of an id that may be taken.
  absl::Status Replace(int64_t id, std::string text, GgufTokenType type, float score);
  // Gives a token another score; the id is below the size.
  void SetScore(int64_t id, float score) { scores_[static_cast<size_t>(id)] = score; }

  // Appends tokenizer.ggml.tokens, scores where asked for, and token_type.
  void AddKeys(bool with_scores, GgufMetadata& metadata);

 private:
  absl::Status CheckId(int64_t id, absl::string_view text) const;

  std::vector<std::string> texts_;
  std::vector<int64_t> types_;
  std::vector<double> scores_;
  const std::string where_;
};

}  // namespace odmoe
