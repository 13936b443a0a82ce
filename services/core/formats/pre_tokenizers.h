// Pre-tokenizers of byte-level BPE vocabularies, by the names `tokenizer.ggml.pre` gives them. The
// converter recognizes one by its regexes; the tokenizer looks it up by name.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace odmoe {

// How text is cut into the pieces that BPE then merges within.
struct PreTokenizer {
  absl::string_view name;  // "qwen2"
  // PCRE2 patterns for UTF and UCP mode, applied one after the other: each cuts every piece so far
  // into its matches and what lies between them, and keeps both.
  std::vector<std::string> regexes;
  // As tokenizer.json writes them, where that is not PCRE2's syntax; else empty.
  std::vector<std::string> written;
  bool nfc = false;            // text is brought to Unicode's normal form C first
  bool ignore_merges = false;  // a piece that is a token is taken whole, whatever the merges say
};

// All we know; names are unique. Immutable.
const std::vector<PreTokenizer>& PreTokenizers();

// By name, or by another name that files use for the same rules. Null: unknown.
const PreTokenizer* FindPreTokenizer(absl::string_view name);

// By its rules, `regexes` spelled as tokenizer.json spells them; a Digits step is `\p{N}` or
// `\p{N}+` and a ByteLevel step with use_regex is kGpt2Regex. Null: unknown.
const PreTokenizer* RecognizePreTokenizer(const std::vector<std::string>& regexes, bool nfc,
                                          bool ignore_merges);

// What a ByteLevel step of tokenizer.json splits by.
extern const absl::string_view kGpt2Regex;

}  // namespace odmoe
