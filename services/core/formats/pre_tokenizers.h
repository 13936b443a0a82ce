// Pre-tokenizers of byte-pair vocabularies, by the names `tokenizer.ggml.pre` gives them. The
// converter recognizes one by its regexes; the tokenizer looks it up by name.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace odmoe {

// Numbers cut into groups of three from the right, before the regexes: "1234567" is 1, 234, 567.
// The groups are pieces, whatever the regexes say. A regex for it takes quadratic time.
enum class DigitGroups {
  kNone,
  kNumbers,           // every run of \p{N}
  kDecimalsToTheEnd,  // runs of \d that no letter or mark follows; others are the regexes'
};

// How text is cut into the pieces that BPE then merges within.
struct PreTokenizer {
  absl::string_view name;  // "qwen2"
  // PCRE2 patterns for UTF and UCP mode, applied one after the other: each cuts every piece so far
  // into its matches and what lies between them, and keeps both.
  std::vector<std::string> regexes;
  // The same rules as tokenizer.json spells them, each way that is known; empty: as `regexes`.
  std::vector<std::vector<std::string>> written;
  DigitGroups digit_groups = DigitGroups::kNone;
  bool nfc = false;            // text is brought to Unicode's normal form C first
  bool ignore_merges = false;  // a piece that is a token is taken whole, whatever the merges say
  bool add_bos = false;        // where the file does not say whether BOS goes before a text
  // False: tokens are written in UTF-8, not in byte characters, and what no token writes is bytes
  // "<0x0A>".
  bool byte_characters = true;
  bool mark_spaces = false;      // a space is written U+2581
  bool whole_line_ends = false;  // a run of line feeds that is a token is taken whole
  bool drop_spaces = false;      // white space separates pieces and is no part of any
};

// All we know; names are unique. Immutable.
const std::vector<PreTokenizer>& PreTokenizers();

// By name, or by another name that files use for the same rules. Null: unknown.
const PreTokenizer* FindPreTokenizer(absl::string_view name);

// By its rules, `regexes` spelled as tokenizer.json spells them; a Digits step is `\p{N}` or
// `\p{N}+`, a ByteLevel step with use_regex is kGpt2Regex and a Punctuation step is
// kPunctuationRegex, with a `+` where it takes runs. Null: unknown.
const PreTokenizer* RecognizePreTokenizer(const std::vector<std::string>& regexes, bool nfc,
                                          bool ignore_merges);

// What a ByteLevel step of tokenizer.json splits by.
extern const absl::string_view kGpt2Regex;

// What a Punctuation step of tokenizer.json splits by.
extern const absl::string_view kPunctuationRegex;

}  // namespace odmoe
