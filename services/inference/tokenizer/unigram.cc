#include "services/inference/tokenizer/unigram.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/inference/tokenizer/character_map.h"
#include "services/inference/tokenizer/token_trie.h"

namespace odmoe {
namespace {

// Of known rules U+FDFA grows most in normal form KC: from 3 bytes to 33.
constexpr size_t kMaxGrowth = 16;

struct Spaces {
  bool prefix = false;
  bool merge_runs = false;
};

// The best way to cut what ends here.
struct Ending {
  double score = -std::numeric_limits<double>::infinity();
  TokenId token = -1;
  int32_t length = 0;  // of that token, bytes
};

class Unigram final : public FragmentEncoder {
 public:
  Unigram(const Vocabulary& vocabulary, CharacterMap map, Spaces spaces)
      : map_(std::move(map)), spaces_(spaces), unknown_(vocabulary.roles().unknown) {
    constexpr double kUnknownPenalty = 10.0;
    float worst = std::numeric_limits<float>::max();
    scores_.resize(static_cast<size_t>(vocabulary.size()));
    for (TokenId token = 0; token < vocabulary.size(); ++token) {
      const TokenType type = vocabulary.type(token);
      const bool normal = type == TokenType::kNormal;
      const bool user_defined = type == TokenType::kUserDefined;
      if (normal) worst = std::min(worst, vocabulary.score(token));
      if (normal || user_defined || type == TokenType::kUnused) {
        trie_.Add(vocabulary.Text(token), token);
      }
      scores_[token] = user_defined ? 0.0f : vocabulary.score(token);
    }
    unknown_score_ = worst - kUnknownPenalty;
  }

  absl::Status Encode(absl::string_view fragment, std::vector<TokenId>& tokens) const override {
    std::string text;
    ODMOE_RETURN_IF_ERROR(Normalize(fragment, text));
    if (text.empty()) return absl::OkStatus();
    const std::vector<Ending> endings = FindEndings(text);
    const size_t first = tokens.size();
    for (size_t at = text.size(); at > 0; at -= endings[at].length) {
      const TokenId token = endings[at].token;
      const bool in_run = tokens.size() > first && tokens.back() == unknown_;
      if (token != unknown_ || !in_run) tokens.push_back(token);
    }
    std::reverse(tokens.begin() + static_cast<int64_t>(first), tokens.end());
    return absl::OkStatus();
  }

 private:
  absl::Status Normalize(absl::string_view text, std::string& normalized) const {
    bool in_word = false;
    bool prefixed = false;
    for (size_t at = 0; at < text.size();) {
      absl::string_view rest = text.substr(at);
      const auto replaced = map_.Replace(rest);
      const size_t consumed = replaced ? replaced->first : ReadUtf8Prefix(rest).length;
      for (char c : replaced ? replaced->second : rest.substr(0, consumed)) {
        if (c == ' ') {
          in_word = false;
          if (!spaces_.merge_runs) normalized.append(kSpaceMark.data(), kSpaceMark.size());
          continue;
        }
        if (!in_word && (spaces_.merge_runs || (spaces_.prefix && !prefixed))) {
          normalized.append(kSpaceMark.data(), kSpaceMark.size());
          prefixed = true;
        }
        in_word = true;
        normalized += c;
      }
      at += consumed;
      if (normalized.size() > kMaxGrowth * (text.size() + kMaxGrowth)) {
        return absl::ResourceExhaustedError(absl::StrFormat(
            "normalizing a text of %d bytes: more than %d times as long", text.size(), kMaxGrowth));
      }
    }
    return absl::OkStatus();
  }

  // By the offset at which they end.
  std::vector<Ending> FindEndings(absl::string_view text) const {
    std::vector<Ending> endings(text.size() + 1);
    endings[0].score = 0;
    const auto offer = [&](size_t begin, size_t end, TokenId token, double score) {
      const double sum = endings[begin].score + score;
      // What no sum compares to, as of infinite scores, is still an ending.
      if (sum > endings[end].score || endings[end].length == 0) {
        endings[end] = {sum, token, static_cast<int32_t>(end - begin)};
      }
    };
    for (size_t begin = 0; begin < text.size();) {
      const size_t character = ReadUtf8Prefix(text.substr(begin)).length;
      bool found_character = false;
      TokenTrie::Node node = TokenTrie::kRoot;
      for (size_t end = begin; end < text.size();) {
        node = trie_.Step(node, text[end++]);
        if (node == TokenTrie::kNone) break;
        const TokenId token = trie_.TokenAt(node);
        if (token < 0) continue;
        found_character = found_character || end - begin == character;
        offer(begin, end, token, scores_[token]);
      }
      if (!found_character) offer(begin, begin + character, unknown_, unknown_score_);
      begin += character;
    }
    return endings;
  }

  const CharacterMap map_;
  const Spaces spaces_;
  const TokenId unknown_;
  double unknown_score_ = 0;
  TokenTrie trie_;
  std::vector<float> scores_;
};

// An array of bytes, signed or not, as bytes.
absl::StatusOr<std::string> ReadBytes(const GgufMetadata& metadata, absl::string_view key) {
  if (metadata.Find(key) == nullptr) return std::string();
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> numbers, metadata.GetInts(key));
  std::string bytes;
  bytes.reserve(numbers.size());
  for (int64_t number : numbers) {
    if (number < -128 || number > 255) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s holds %d, expected bytes", key, number));
    }
    bytes += static_cast<char>(number);
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakeUnigram(const GgufMetadata& metadata,
                                                             const Vocabulary& vocabulary) {
  if (vocabulary.roles().unknown < 0) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.unknown_token_id: a unigram model has no other way to write every text");
  }
  Spaces spaces;
  ODMOE_ASSIGN_OR_RETURN(spaces.prefix,
                         metadata.GetBoolOr("tokenizer.ggml.add_space_prefix", false));
  ODMOE_ASSIGN_OR_RETURN(spaces.merge_runs,
                         metadata.GetBoolOr("tokenizer.ggml.remove_extra_whitespaces", false));
  ODMOE_ASSIGN_OR_RETURN(const std::string bytes,
                         ReadBytes(metadata, "tokenizer.ggml.precompiled_charsmap"));
  ODMOE_ASSIGN_OR_RETURN(CharacterMap map, CharacterMap::Parse(bytes));
  return std::make_unique<Unigram>(vocabulary, std::move(map), spaces);
}

}  // namespace odmoe
