#include "converter/huggingface/merges_file.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"
#include "services/core/io/file.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{128} << 20;

struct ClassRules {
  absl::string_view name;  // without "Fast" behind it
  absl::string_view pre_tokenizer;
};
constexpr ClassRules kClasses[] = {
    {"GPT2Tokenizer", "gpt-2"},
    {"Qwen2Tokenizer", "qwen2"},
};

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseMergesFile(absl::string_view text,
                                                         const std::string& where) {
  std::vector<std::string> merges;
  int64_t number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (number == 1 && absl::StartsWith(line, "#")) continue;
    const std::vector<absl::string_view> parts =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (parts.empty()) continue;
    if (parts.size() != 2) {
      return absl::DataLossError(absl::StrCat(where, ": line ", number, " has ", parts.size(),
                                              " parts, expected the 2 of a merge"));
    }
    merges.push_back(absl::StrCat(parts[0], " ", parts[1]));
  }
  return merges;
}

absl::StatusOr<std::optional<nlohmann::json>> ReadMergesFiles(const Checkpoint& checkpoint) {
  const std::string vocab_where = absl::StrCat(checkpoint.folder(), "/vocab.json");
  const std::string merges_where = absl::StrCat(checkpoint.folder(), "/merges.txt");
  const auto text = ReadWholeFile(checkpoint.file_system(), merges_where, kMaxFileBytes);
  auto vocab = ReadJsonFile(checkpoint.file_system(), vocab_where, kMaxFileBytes);
  if (absl::IsNotFound(text.status()) || absl::IsNotFound(vocab.status())) {
    return std::optional<nlohmann::json>();
  }
  ODMOE_RETURN_IF_ERROR(text.status());
  ODMOE_RETURN_IF_ERROR(vocab.status());
  ODMOE_ASSIGN_OR_RETURN(std::vector<std::string> merges, ParseMergesFile(*text, merges_where));
  nlohmann::json tokenizer;
  tokenizer["model"] = {{"type", "BPE"}};
  tokenizer["model"]["vocab"] = *std::move(vocab);
  tokenizer["model"]["merges"] = std::move(merges);
  tokenizer["decoder"] = {{"type", "ByteLevel"}};
  return std::optional(std::move(tokenizer));
}

absl::StatusOr<std::string> PreTokenizerOfClass(const nlohmann::json& tokenizer_config,
                                                const std::string& where) {
  std::string name;
  if (const auto found = tokenizer_config.find("tokenizer_class");
      found != tokenizer_config.end() && found->is_string()) {
    name = found->get<std::string>();
  }
  std::string known;
  for (const ClassRules& rules : kClasses) {
    if (absl::StripSuffix(name, "Fast") == rules.name) return std::string(rules.pre_tokenizer);
    absl::StrAppend(&known, known.empty() ? "" : " and ", rules.name);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      where,
      ": beside vocab.json and merges.txt only tokenizer_class tells how words are split, and '",
      name, "' is not known (", known, " are); name the rules with --pre-tokenizer"));
}

}  // namespace odmoe
