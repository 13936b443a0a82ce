#include "converter/huggingface/model_id.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace odmoe {
namespace {

bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }
bool IsAlpha(char c) {
  return absl::ascii_isalpha(static_cast<unsigned char>(c)) ||
         static_cast<unsigned char>(c) >= 0x80;
}

// Takes digits off the front; false without one.
bool TakeDigits(absl::string_view& text) {
  const size_t count = std::min(text.find_first_not_of("0123456789"), text.size());
  text.remove_prefix(count);
  return count > 0;
}

bool TakeOneOf(absl::string_view& text, absl::string_view letters) {
  if (text.empty() || !absl::StrContains(letters, absl::ascii_tolower(
                                                      static_cast<unsigned char>(text[0])))) {
    return false;
  }
  text.remove_prefix(1);
  return true;
}

bool TakePrefix(absl::string_view& text, absl::string_view prefix) {
  if (!absl::StartsWithIgnoreCase(text, prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool IsOneOf(absl::string_view text, std::initializer_list<absl::string_view> words) {
  return std::any_of(words.begin(), words.end(), [&](absl::string_view word) {
    return absl::EqualsIgnoreCase(text, word);
  });
}

// "2", "v0.1", "iter3"
bool IsVersion(absl::string_view text) {
  if (!TakePrefix(text, "iter")) TakePrefix(text, "v");
  if (!TakeDigits(text)) return false;
  while (!text.empty()) {
    if (text[0] != '.') return false;
    text.remove_prefix(1);
    if (!TakeDigits(text)) return false;
  }
  return true;
}

// "Q4_K_M", "bf16"
bool IsWeightFormat(absl::string_view text) {
  if (IsOneOf(text, {"f16", "f32", "fp16", "fp32", "bf16", "bf32", "bfp16", "bfp32"})) return true;
  TakeOneOf(text, "i");
  if (!TakeOneOf(text, "q") || text.empty() || !IsDigit(text[0])) return false;
  text.remove_prefix(1);
  while (text.size() >= 2 && text[0] == '_' &&
         (IsAlpha(text[1]) || IsDigit(text[1]) || text[1] == '_')) {
    text.remove_prefix(2);
  }
  return text.empty();
}

// "7B", "8x7B", "A3B", "1.5B", "7b1", "mini"
bool IsSize(absl::string_view text) {
  if (IsOneOf(text, {"small", "mini", "medium", "large", "xl", "xxl"})) return true;
  if (!TakeOneOf(text, "a")) {
    absl::string_view rest = text;
    if (TakeDigits(rest) && TakeOneOf(rest, "x")) text = rest;
  }
  if (!TakeDigits(text)) return false;
  absl::string_view rest = text;
  if (TakeOneOf(rest, "._") && TakeDigits(rest)) text = rest;
  if (!TakeOneOf(text, "kmbt")) return false;
  return text.empty() || (text.size() == 1 && IsDigit(text[0]));
}

struct Part {
  std::string text;
  bool version = false, type = false, size = false, finetune = false, base = false;

  int kinds() const { return version + type + size + finetune + base; }
};

// "7.1B" of "7b1", "1.5B" of "1_5b".
std::string NormalSize(absl::string_view text) {
  std::string size = absl::StrReplaceAll(text, {{"_", "."}});
  const size_t n = size.size();
  if (IsDigit(size[n - 1])) {
    size = absl::StrCat(size.substr(0, n - 2), ".", size.substr(n - 1), size.substr(n - 2, 1));
  }
  char& last = size.back();
  if (size.size() > 1 && IsDigit(size[size.size() - 2]) && absl::StrContains("kmbt", last)) {
    last = absl::ascii_toupper(static_cast<unsigned char>(last));
  }
  return size;
}

// Whether a size such as "128K" is too far from how many weights there are to be one.
bool IsFarFrom(const std::string& size, int64_t parameters) {
  double count = 0;
  if (parameters == 0 || !absl::SimpleAtod(size.substr(0, size.size() - 1), &count)) return false;
  const size_t power = absl::string_view(" KMBT").find(size.back());
  if (power == absl::string_view::npos) return false;
  count *= std::pow(1000.0, static_cast<double>(power));
  if (parameters < 0) return count < static_cast<double>(-parameters / 8);
  return std::abs(count - static_cast<double>(parameters)) >
         static_cast<double>(7 * parameters / 8);
}

void Annotate(Part& part, bool first, int64_t parameters) {
  if (IsVersion(part.text)) {
    part.version = true;
  } else if (IsWeightFormat(part.text)) {
    part.type = true;
    absl::AsciiStrToUpper(&part.text);
  } else if (!first && IsSize(part.text)) {
    part.text = NormalSize(part.text);
    if (IsFarFrom(part.text, parameters)) {
      part.finetune = true;
      part.text.back() = absl::ascii_tolower(static_cast<unsigned char>(part.text.back()));
    } else {
      part.size = true;
    }
  } else if (!first && IsOneOf(part.text, {"chat", "instruct", "vision", "lora"})) {
    const bool adapter = parameters < 0 && absl::EqualsIgnoreCase(part.text, "lora");
    (adapter ? part.type : part.finetune) = true;
  }
}

// "mini" is no size beside a number.
void DropSizeWords(std::vector<Part>& parts) {
  const auto has_digit = [](const Part& part) {
    return part.size && std::any_of(part.text.begin(), part.text.end(), IsDigit);
  };
  if (std::none_of(parts.begin(), parts.end(), has_digit)) return;
  for (Part& part : parts) {
    if (std::all_of(part.text.begin(), part.text.end(), IsAlpha)) part.size = false;
  }
}

// The base name is what comes before the first part of another kind; versions in it count as part
// of it unless they end it.
void FindBaseName(std::vector<Part>& parts) {
  bool at_start = true;
  for (Part& part : parts) {
    if (at_start && ((part.kinds() == 0 && IsAlpha(part.text[0])) || part.version)) {
      part.base = true;
    } else {
      at_start = false;
      if (part.kinds() == 0) part.finetune = true;
    }
  }
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (!part->base || part->kinds() == 1) break;
    part->base = false;
  }
}

template <typename Predicate>
std::optional<std::string> Join(const std::vector<Part>& parts, Predicate predicate) {
  std::vector<std::string> chosen;
  for (const Part& part : parts) {
    if (predicate(part)) chosen.push_back(part.text);
  }
  if (chosen.empty()) return std::nullopt;
  return absl::StrJoin(chosen, "-");
}

std::optional<std::string> JoinSizes(const std::vector<Part>& parts) {
  std::vector<std::string> sizes;
  for (const Part& part : parts) {
    if (part.size && std::find(sizes.begin(), sizes.end(), part.text) == sizes.end()) {
      sizes.push_back(part.text);
    }
  }
  if (sizes.empty()) return std::nullopt;
  return absl::StrJoin(sizes, "-");
}

std::string TitleWord(absl::string_view word) {
  bool lower = false;
  for (char c : word) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c))) return std::string(word);
    lower = lower || absl::ascii_islower(static_cast<unsigned char>(c));
  }
  const bool version = word[0] == 'v' && word.size() > 1 &&
                       word.find_first_not_of("0123456789.", 1) == absl::string_view::npos;
  if (!lower || IsDigit(word[0]) || version) return std::string(word);
  std::string title(word);
  bool after_letter = false;
  for (char& c : title) {
    if (!after_letter) c = absl::ascii_toupper(static_cast<unsigned char>(c));
    after_letter = IsAlpha(c);
  }
  return title;
}

}  // namespace

ModelIdParts ParseModelId(absl::string_view id, int64_t parameters) {
  ModelIdParts result;
  result.full_name = std::string(id);
  if (absl::StrContains(id, ' ')) return result;  // a sentence, and no id
  if (const size_t slash = id.find('/'); slash != absl::string_view::npos) {
    // "./" and "../" are no organizations.
    if (id[0] != '.') result.organization = std::string(id.substr(0, slash));
    result.full_name = std::string(id.substr(slash + 1));
  }
  std::vector<Part> parts;
  for (absl::string_view text : absl::StrSplit(result.full_name, '-', absl::SkipEmpty())) {
    parts.push_back({.text = std::string(text)});
    Annotate(parts.back(), parts.size() == 1, parameters);
  }
  DropSizeWords(parts);
  FindBaseName(parts);
  result.basename = Join(parts, [](const Part& part) { return part.base; });
  result.size_label = JoinSizes(parts);
  result.finetune = Join(parts, [](const Part& part) { return part.finetune; });
  result.version = Join(parts, [](const Part& part) { return part.version && !part.base; });
  if (!result.size_label && !result.finetune && !result.version) result.basename.reset();
  return result;
}

std::string TitleOfId(absl::string_view id) {
  std::vector<std::string> words;
  for (absl::string_view word : absl::StrSplit(id, absl::ByAnyChar("- \t"), absl::SkipEmpty())) {
    words.push_back(TitleWord(word));
  }
  return absl::StrJoin(words, " ");
}

}  // namespace odmoe
