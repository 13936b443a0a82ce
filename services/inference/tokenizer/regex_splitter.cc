#define PCRE2_CODE_UNIT_WIDTH 8

#include "services/inference/tokenizer/regex_splitter.h"

#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;

std::string PcreMessage(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// A match backtracks over each byte a few times at most with every pattern we know.
uint32_t MatchLimit(size_t text_bytes) {
  constexpr size_t kBase = 1'000'000;
  constexpr size_t kPerByte = 4;
  return static_cast<uint32_t>(std::min(kBase + kPerByte * text_bytes, size_t{UINT32_MAX}));
}

size_t CharacterLength(char lead) {
  const uint8_t byte = static_cast<uint8_t>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace

class RegexSplitter::Pattern {
 public:
  static absl::StatusOr<std::unique_ptr<Pattern>> Compile(const std::string& pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                            nullptr));
    if (code == nullptr) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "pre-tokenizer pattern, byte %d: %s: %s", offset, PcreMessage(error), pattern));
    }
    // Where a sandbox forbids executable memory this fails, and the interpreter does the work.
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    return std::make_unique<Pattern>(std::move(code));
  }

  explicit Pattern(Code code) : code_(std::move(code)) {}
  const pcre2_code* code() const { return code_.get(); }

 private:
  Code code_;
};

// One call of Split.
class RegexSplitter::Pass {
 public:
  Pass(const std::vector<std::unique_ptr<Pattern>>& patterns, size_t text_bytes, OnPiece on_piece,
       bool matches_only)
      : patterns_(patterns),
        on_piece_(on_piece),
        matches_only_(matches_only),
        context_(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context_.get(), MatchLimit(text_bytes));
    for (const auto& pattern : patterns_) {
      match_data_.emplace_back(pcre2_match_data_create_from_pattern(pattern->code(), nullptr));
    }
  }

  // Applies patterns [index..] to a piece; their number bounds the recursion.
  absl::Status Split(absl::string_view piece, size_t index) {
    if (piece.empty()) return absl::OkStatus();
    if (index == patterns_.size()) {
      on_piece_(piece);
      return absl::OkStatus();
    }
    size_t between = 0;  // where what no match has taken begins
    size_t from = 0;
    while (from < piece.size()) {
      const int count = pcre2_match(patterns_[index]->code(),
                                    reinterpret_cast<PCRE2_SPTR>(piece.data()), piece.size(), from,
                                    PCRE2_NO_UTF_CHECK, match_data_[index].get(), context_.get());
      if (count == PCRE2_ERROR_NOMATCH) break;
      if (count < 0) {
        return absl::ResourceExhaustedError(absl::StrFormat(
            "splitting a text of %d bytes for tokenizing: %s", piece.size(), PcreMessage(count)));
      }
      const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match_data_[index].get());
      const size_t begin = ends[0];
      const size_t end = ends[1];
      if (begin >= end) {
        from = begin < piece.size() ? begin + CharacterLength(piece[begin]) : piece.size();
        continue;
      }
      if (!matches_only_) {
        ODMOE_RETURN_IF_ERROR(Split(piece.substr(between, begin - between), index + 1));
      }
      ODMOE_RETURN_IF_ERROR(Split(piece.substr(begin, end - begin), index + 1));
      between = from = end;
    }
    return matches_only_ ? absl::OkStatus() : Split(piece.substr(between), index + 1);
  }

 private:
  const std::vector<std::unique_ptr<Pattern>>& patterns_;
  OnPiece on_piece_;
  const bool matches_only_;
  MatchContext context_;
  std::vector<MatchData> match_data_;
};

RegexSplitter::RegexSplitter() = default;
RegexSplitter::~RegexSplitter() = default;

absl::StatusOr<std::unique_ptr<RegexSplitter>> RegexSplitter::Create(
    const std::vector<std::string>& patterns) {
  std::unique_ptr<RegexSplitter> splitter(new RegexSplitter);
  for (const std::string& pattern : patterns) {
    ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<Pattern> compiled, Pattern::Compile(pattern));
    splitter->patterns_.push_back(std::move(compiled));
  }
  return splitter;
}

absl::Status RegexSplitter::Split(absl::string_view text, OnPiece on_piece) const {
  return Pass(patterns_, text.size(), on_piece, false).Split(text, 0);
}

absl::Status RegexSplitter::ForEachMatch(absl::string_view text, OnPiece on_match) const {
  return Pass(patterns_, text.size(), on_match, true).Split(text, 0);
}

}  // namespace odmoe
