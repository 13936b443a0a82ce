#include "services/core/formats/pre_tokenizers.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace odmoe {

const absl::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// ASCII's signs count as punctuation, whatever Unicode calls them.
const absl::string_view kPunctuationRegex = R"([\p{P}$+<=>^`|~])";

namespace {

using Regexes = std::vector<std::string>;

// The parts most patterns since GPT-4 are put together from.
constexpr char kContraction[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))";
constexpr char kWord[] = R"([^\r\n\p{L}\p{N}]?\p{L}+)";
constexpr char kSymbols[] = R"( ?[^\s\p{L}\p{N}]+[\r\n]*)";
constexpr char kSymbolsSlash[] = R"( ?[^\s\p{L}\p{N}]+[\r\n/]*)";
constexpr char kSpaces[] = R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kUpper[] = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])";
constexpr char kLower[] = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";

// Words as runs of capitals and small letters; `suffix` follows either form.
std::string CasedWords(absl::string_view upper, absl::string_view lower, absl::string_view suffix) {
  constexpr char kPrefix[] = R"([^\r\n\p{L}\p{N}]?)";
  return absl::StrCat(kPrefix, upper, "*", lower, "+", suffix, "|", kPrefix, upper, "+", lower, "*",
                      suffix);
}

// With `digits` at most in one piece: 1 in Qwen2's form, 3 in Llama 3's.
std::string ContractionsWordsDigits(absl::string_view digits, absl::string_view spaces = kSpaces) {
  return absl::StrCat(kContraction, "|", kWord, "|", digits, "|", kSymbols, "|", spaces);
}

// Cased words with contractions, as OpenAI's o200k has them.
std::string O200k(absl::string_view digits) {
  return absl::StrCat(CasedWords(kUpper, kLower, absl::StrCat(kContraction, "?")), "|", digits, "|",
                      kSymbolsSlash, "|", kSpaces);
}

// The letters with case, as DeepSeek's first tokenizer lists them.
constexpr char kDeepSeekLetters[] =
    "A-Za-z"
    "\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5"
    "\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3"
    "\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115"
    "\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
    "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943";

// Han, and Hangul syllables, with all that lies between U+0800 and U+4E00.
constexpr char kDeepSeekEastAsian[] = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";

PreTokenizer DeepSeekLlm() {
  return {.name = "deepseek-llm",
          .regexes = {R"([\r\n])", absl::StrCat(R"(\s?[)", kDeepSeekLetters, "]+"),
                      "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
                      R"(\s+$)", kDeepSeekEastAsian, R"(\p{N})"}};
}

PreTokenizer DeepSeekCoder() {
  return {.name = "deepseek-coder",
          .regexes = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepSeekEastAsian,
                      R"(\p{N})"}};
}

// DeepSeek-V3's last pattern, which others took over.
constexpr char kDeepSeekV3Words[] =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
    R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

PreTokenizer DeepSeekV3() {
  return {.name = "deepseek-v3",
          .regexes = {R"(\p{N}{1,3})", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
                      kDeepSeekV3Words}};
}

PreTokenizer Afmoe() {
  return {.name = "afmoe",
          .regexes = {"[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff"
                      "\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff"
                      "\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
                      kDeepSeekV3Words},
          .digit_groups = DigitGroups::kNumbers};
}

PreTokenizer KimiK2() {
  const std::string rest =
      absl::StrCat(R"(|\p{N}{1,3}|)", kSymbols, "|", kSpaces);
  const std::string suffix = absl::StrCat(kContraction, "?");
  // PCRE2 has no intersection of classes, so each is written as what it leaves out: every other
  // general category, and Han. Looking ahead for Han instead would take stack for each letter of a
  // word. PCRE2's \p{Han} means script extensions, the checkpoint's the script alone.
  constexpr char kUpperOf[] = R"([^\p{Ll}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{sc:Han}])";
  constexpr char kLowerOf[] = R"([^\p{Lu}\p{Lt}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{sc:Han}])";
  constexpr char kUpperNotHan[] = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]])";
  constexpr char kLowerNotHan[] = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]])";
  return {.name = "kimi-k2",
          .regexes = {absl::StrCat(R"([\p{sc:Han}]+|)", CasedWords(kUpperOf, kLowerOf, suffix),
                                   rest)},
          .written = {{absl::StrCat(R"([\p{Han}]+|)",
                                    CasedWords(kUpperNotHan, kLowerNotHan, suffix), rest)}}};
}

PreTokenizer Tekken() {
  return {.name = "tekken",
          .regexes = {absl::StrCat(CasedWords(kUpper, kLower, ""), R"(|\p{N}|)", kSymbolsSlash, "|",
                                   kSpaces)},
          .ignore_merges = true,
          .add_bos = true};
}

PreTokenizer Qwen35() {
  return {.name = "qwen35",
          .regexes = {absl::StrCat(kContraction, R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)",
                                   R"( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)", kSpaces)},
          .nfc = true};
}

PreTokenizer Youtu() {
  return {.name = "youtu",
          .regexes = {"[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014"
                      "\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+"
                      "|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
                      O200k(R"(\p{N})")},
          .ignore_merges = true};
}

// Words may be joined by single spaces. The quantifiers are possessive, as nothing can follow that
// would make a match give letters back: a line of words is one match, and would fill the stack.
PreTokenizer ExaoneMoe() {
  const auto regex = [](absl::string_view words) {
    return absl::StrCat(kContraction, R"(|[^\r\n\p{L}\p{N}]?)", words,
                        R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)");
  };
  return {.name = "exaone-moe",
          .regexes = {regex(R"((?:\p{L}\p{M}*+(?: \p{L}\p{M}*+)*+)++)")},
          .written = {{regex(R"((?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+)")}}};
}

PreTokenizer BailingMoe() {
  constexpr char kEnd[] = R"(\s*[\r\n]|\s+(?!\S)|\s+)";
  return {.name = "bailingmoe",
          .regexes = {absl::StrCat(R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}|)",
                                   R"( ?[^\s\p{L}\p{N}]++[\r\n]*|)", kEnd)}};
}

PreTokenizer SeedCoder() {
  return {.name = "seed-coder",
          .regexes = {absl::StrCat(kContraction, "|", kWord,
                                   R"(|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|)", kSpaces)}};
}

PreTokenizer TinyAya() {
  constexpr char kFromTheRight[] = R"(\d{1,3}(?=(?:\d{3})*\b))";
  return {.name = "tiny_aya",
          .regexes = {O200k(R"(\p{N}{1,3})")},
          .written = {{kFromTheRight, O200k(R"(\p{N}{1,3})")}},
          .digit_groups = DigitGroups::kDecimalsToTheEnd};
}

// Pieces reach over spaces: only numbers are cut out.
PreTokenizer SuperBpe() {
  return {.name = "superbpe",
          .regexes = {R"(\p{N}+)"},
          .written = {{R"(\p{N}+)", R"((?=(\d{3})+(?!\d)))"}},
          .digit_groups = DigitGroups::kNumbers};
}

// Runs of spaces by halves, from 512.
PreTokenizer Jais2() {
  std::string spaces = R"(\s*[\r\n]+)";
  for (int length = 512; length >= 4; length /= 2) {
    absl::StrAppend(&spaces, R"(|\s{)", length, R"(}(?!\S))");
  }
  absl::StrAppend(&spaces, R"(|\s{1,2}(?!\S)|\s{1})");
  return {.name = "jais-2", .regexes = {ContractionsWordsDigits(R"(\p{N}{1,3})", spaces)}};
}

PreTokenizer Chameleon(const std::string& gpt2) {
  return {.name = "chameleon",
          .regexes = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                      "([\\t\\n]|    |  )", R"(\p{N})", std::string(kPunctuationRegex), gpt2},
          .add_bos = true};
}

// Bloom's words end at the punctuation of several scripts.
constexpr char kBloom[] = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+";
constexpr char kBloomWritten[] = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+";

// Tokens in UTF-8, spaces marked: cut at line ends only.
PreTokenizer MarkedSpaces(absl::string_view name, bool is_gemma) {
  return {.name = name,
          .regexes = {R"([^\n]+|[\n]+)"},
          .add_bos = is_gemma,
          .byte_characters = false,
          .mark_spaces = true,
          .whole_line_ends = is_gemma};
}

std::vector<PreTokenizer> MakePreTokenizers() {
  const std::string gpt2(kGpt2Regex);
  const std::string punctuation(kPunctuationRegex);
  const std::string one_digit = ContractionsWordsDigits(R"(\p{N})");
  const std::string three_digits = ContractionsWordsDigits(R"(\p{N}{1,3})");
  return {
      {.name = "gpt-2", .regexes = {gpt2}},
      {.name = "olmo", .regexes = {gpt2}, .nfc = true},
      {.name = "starcoder", .regexes = {R"(\p{N})", gpt2}},
      {.name = "command-r", .regexes = {R"(\p{N})", gpt2}, .nfc = true},
      {.name = "falcon", .regexes = {punctuation + "+", gpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
      {.name = "default",
       .regexes = {R"([\p{P}$+<=>^~|]+)", gpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
      {.name = "llama-bpe", .regexes = {three_digits}, .ignore_merges = true, .add_bos = true},
      {.name = "smaug-bpe", .regexes = {three_digits}},
      {.name = "minicpm5",
       .regexes = {R"(\p{N}{1,3})", ContractionsWordsDigits(R"(\p{N}+)")},
       .ignore_merges = true},
      {.name = "qwen2", .regexes = {one_digit}, .nfc = true},
      {.name = "hunyuan", .regexes = {one_digit}},
      Qwen35(),
      DeepSeekLlm(),
      DeepSeekCoder(),
      DeepSeekV3(),
      KimiK2(),
      {.name = "gpt-4o", .regexes = {O200k(R"(\p{N}{1,3})")}},
      {.name = "granite-embed-multi-97m",
       .regexes = {O200k(R"(\p{N}{1,3})")},
       .ignore_merges = true},
      Tekken(),
      TinyAya(),
      Youtu(),
      ExaoneMoe(),
      BailingMoe(),
      SeedCoder(),
      Afmoe(),
      SuperBpe(),
      Jais2(),
      Chameleon(gpt2),
      {.name = "bloom", .regexes = {kBloom}, .written = {{kBloom}, {kBloomWritten}}},
      {.name = "viking",
       .regexes = {kBloom, R"(\p{N})"},
       .written = {{kBloom, R"(\p{N})"}, {kBloomWritten, R"(\p{N})"}}},
      MarkedSpaces("gemma4", true),
      MarkedSpaces("sarvam-moe", false),
      {.name = "whitespace",
       .regexes = {R"(\S+)"},
       .byte_characters = false,
       .drop_spaces = true},
  };
}

// PCRE2's \s knows U+180E, which is no white space since Unicode 6.3.
void SpellOut(PreTokenizer& pre) {
  if (pre.written.empty()) pre.written.push_back(pre.regexes);
  for (std::string& regex : pre.regexes) {
    absl::StrReplaceAll({{R"(\s)", R"(\p{White_Space})"}, {R"(\S)", R"(\P{White_Space})"}}, &regex);
  }
}

// Other names for rules listed above.
constexpr std::pair<absl::string_view, absl::string_view> kAliases[] = {
    {"llama3", "llama-bpe"},
    {"llama-v3", "llama-bpe"},
    {"falcon3", "llama-bpe"},
    {"falcon-h1", "llama-bpe"},
    {"pixtral", "llama-bpe"},
    {"midm-2.0", "llama-bpe"},
    {"lfm2", "llama-bpe"},
    {"jina-v5-nano", "llama-bpe"},
    {"phi-2", "gpt-2"},
    {"jina-es", "gpt-2"},
    {"jina-de", "gpt-2"},
    {"jina-v1-en", "gpt-2"},
    {"jina-v2-es", "gpt-2"},
    {"jina-v2-de", "gpt-2"},
    {"jina-v2-code", "gpt-2"},
    {"roberta-bpe", "gpt-2"},
    {"gigachat", "gpt-2"},
    {"a.x-4.0", "gpt-2"},
    {"mellum", "gpt-2"},
    {"jais", "gpt-2"},
    {"trillion", "gpt-2"},
    {"granite-docling", "gpt-2"},
    {"exaone4", "gpt-2"},
    {"mpt", "olmo"},
    {"modern-bert", "olmo"},
    {"refact", "starcoder"},
    {"smollm", "starcoder"},
    {"codeshell", "starcoder"},
    {"exaone", "starcoder"},
    {"minerva-7b", "starcoder"},
    {"mellum2", "starcoder"},
    {"dbrx", "smaug-bpe"},
    {"glm4", "smaug-bpe"},
    {"chatglm-bpe", "smaug-bpe"},
    {"deepseek-r1-qwen", "qwen2"},
    {"megrez", "qwen2"},
    {"kormo", "qwen2"},
    {"f2llmv2", "qwen2"},
    {"stablelm2", "hunyuan"},
    {"solar-open", "hunyuan"},
    {"grok-2", "hunyuan"},
    {"hunyuan-dense", "deepseek-v3"},
    {"joyai-llm", "deepseek-v3"},
    {"llama4", "gpt-4o"},
    {"kanana2", "gpt-4o"},
    {"talkie", "gpt-4o"},
    {"minimax-m2", "gpt-4o"},
    {"cohere2moe", "tiny_aya"},
    {"bailingmoe2", "bailingmoe"},
    {"llada-moe", "bailingmoe"},
    {"poro-chat", "bloom"},
    {"gpt3-finnish", "bloom"},
    {"granite-embed-multi-311m", "gemma4"},
};

}  // namespace

const std::vector<PreTokenizer>& PreTokenizers() {
  static const auto& all = *[] {
    auto* made = new std::vector<PreTokenizer>(MakePreTokenizers());
    for (PreTokenizer& pre : *made) SpellOut(pre);
    return made;
  }();
  return all;
}

const PreTokenizer* FindPreTokenizer(absl::string_view name) {
  for (const auto& [alias, target] : kAliases) {
    if (alias == name) name = target;
  }
  for (const PreTokenizer& known : PreTokenizers()) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

const PreTokenizer* RecognizePreTokenizer(const std::vector<std::string>& regexes, bool nfc,
                                          bool ignore_merges) {
  for (const PreTokenizer& known : PreTokenizers()) {
    if (known.nfc != nfc || known.ignore_merges != ignore_merges || !known.byte_characters) {
      continue;
    }
    for (const Regexes& written : known.written) {
      if (written == regexes) return &known;
    }
  }
  return nullptr;
}

}  // namespace odmoe
