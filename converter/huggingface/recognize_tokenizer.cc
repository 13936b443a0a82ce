#include <optional>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "converter/huggingface/tokenizer.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

// A step's string member, "" where it has none.
std::string Text(const nlohmann::json& step, const char* key) {
  if (!step.is_object()) return "";
  const auto found = step.find(key);
  return found != step.end() && found->is_string() ? found->get<std::string>() : "";
}

// A step that is a list of steps, however deep, as one list. `member` is what holds the list.
void Flatten(const nlohmann::json& step, const char* member,
             std::vector<const nlohmann::json*>& steps) {
  if (Text(step, "type") == "Sequence" && step.contains(member) && step[member].is_array()) {
    for (const nlohmann::json& inner : step[member]) Flatten(inner, member, steps);
  } else if (!step.is_null()) {
    steps.push_back(&step);
  }
}

std::string Show(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// True: normal form C. INVALID_ARGUMENT: anything else than that or nothing.
absl::StatusOr<bool> ReadNormalizer(const nlohmann::json& tokenizer, const std::string& where) {
  std::vector<const nlohmann::json*> steps;
  if (tokenizer.contains("normalizer")) Flatten(tokenizer["normalizer"], "normalizers", steps);
  bool nfc = false;
  for (const nlohmann::json* step : steps) {
    if (Text(*step, "type") != "NFC") {
      return absl::InvalidArgumentError(absl::StrCat(
          where, ": normalizer ", Show(*step), " is not known; only NFC can be converted"));
    }
    nfc = true;
  }
  return nfc;
}

bool Flag(const nlohmann::json& step, const char* key, bool otherwise) {
  const auto found = step.find(key);
  return found != step.end() && found->is_boolean() ? found->get<bool>() : otherwise;
}

// The regex a step splits by, keeping matches and what is between them; "" for one that does not
// split. Absent: a step we have no regex for.
std::optional<std::string> RegexOf(const nlohmann::json& step) {
  if (!step.is_object()) return std::nullopt;
  const std::string type = Text(step, "type");
  if (type == "ByteLevel") {
    if (Flag(step, "add_prefix_space", true)) return std::nullopt;
    return Flag(step, "use_regex", true) ? std::string(kGpt2Regex) : std::string();
  }
  if (type == "Punctuation") {
    const std::string behavior = Text(step, "behavior");
    if (behavior == "Isolated") return std::string(kPunctuationRegex);
    if (behavior == "Contiguous") return absl::StrCat(kPunctuationRegex, "+");
    return std::nullopt;
  }
  if (type == "Digits") return Flag(step, "individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)";
  if (type != "Split" || !step.contains("pattern") || !step["pattern"].is_object()) {
    return std::nullopt;
  }
  // To remove what does not match comes to the same where the regex matches everything.
  const std::string behavior = Text(step, "behavior");
  const bool invert = Flag(step, "invert", false);
  if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert)) {
    return std::nullopt;
  }
  const auto regex = step["pattern"].find("Regex");
  if (regex == step["pattern"].end() || !regex->is_string()) return std::nullopt;
  return regex->get<std::string>();
}

absl::Status Unknown(const std::vector<const nlohmann::json*>& steps, bool nfc, bool ignore_merges,
                     const std::string& where) {
  std::vector<std::string> shown;
  for (const nlohmann::json* step : steps) shown.push_back(Show(*step));
  std::vector<absl::string_view> known;
  for (const PreTokenizer& pre : PreTokenizers()) known.push_back(pre.name);
  return absl::InvalidArgumentError(absl::StrCat(
      where, ": the pre-tokenizer is not known: ",
      shown.empty() ? "none" : absl::StrJoin(shown, ", "), " (normal form C: ",
      nfc ? "yes" : "no", ", ignore_merges: ", ignore_merges ? "yes" : "no",
      "); to convert all the same, name one with --pre-tokenizer: ", absl::StrJoin(known, ", ")));
}

}  // namespace

absl::StatusOr<const PreTokenizer*> RecognizeTokenizerJson(const nlohmann::json& tokenizer,
                                                           const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(tokenizer, where));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject model, object.Object("model"));
  const bool ignore_merges = Flag(model.value(), "ignore_merges", false);
  ODMOE_ASSIGN_OR_RETURN(const bool nfc, ReadNormalizer(tokenizer, where));
  std::vector<const nlohmann::json*> steps;
  if (object.Has("pre_tokenizer")) Flatten(tokenizer["pre_tokenizer"], "pretokenizers", steps);
  std::vector<std::string> regexes;
  for (const nlohmann::json* step : steps) {
    const auto regex = RegexOf(*step);
    if (!regex) return Unknown(steps, nfc, ignore_merges, where);
    if (!regex->empty()) regexes.push_back(*regex);
  }
  const PreTokenizer* pre = RecognizePreTokenizer(regexes, nfc, ignore_merges);
  if (pre == nullptr) return Unknown(steps, nfc, ignore_merges, where);
  return pre;
}

absl::string_view NameOfPreTokenizer(const PreTokenizer& pre,
                                     const std::vector<AddedToken>& added) {
  struct Alias {
    absl::string_view rules;
    absl::string_view token;
    absl::string_view name;
  };
  constexpr Alias kAliases[] = {
      {"qwen2", "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "deepseek-r1-qwen"},
      {"gpt-4o", "<|begin_of_text|>", "llama4"},
      {"smaug-bpe", "[gMASK]", "glm4"},
      {"smaug-bpe", "<|endoftext|>", "dbrx"},
      {"starcoder", "<|START_OF_TURN_TOKEN|>", "command-r"},
      {"deepseek-v3", "<\uff5chy_begin\u2581of\u2581sentence\uff5c>", "hunyuan-dense"},
  };
  for (const Alias& alias : kAliases) {
    if (alias.rules != pre.name) continue;
    for (const AddedToken& token : added) {
      if (token.content == alias.token) return alias.name;
    }
  }
  return pre.name;
}

}  // namespace odmoe
