#include "converter/huggingface/model_card.h"

#include <yaml.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxCardBytes = uint64_t{256} << 10;
constexpr size_t kMaxDepth = 32;

absl::Status Refused(absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("model card: ", why));
}

// YAML 1.1's reading of a scalar without quotes.
nlohmann::json PlainScalar(const std::string& text) {
  const std::string lower = absl::AsciiStrToLower(text);
  if (lower.empty() || lower == "~" || lower == "null") return nullptr;
  if (lower == "true" || lower == "yes" || lower == "on") return true;
  if (lower == "false" || lower == "no" || lower == "off") return false;
  int64_t integer = 0;
  double number = 0;
  if (absl::SimpleAtoi(text, &integer)) return integer;
  if (absl::StrContains(text, '.') && absl::SimpleAtod(text, &number)) return number;
  return text;
}

// Builds a value from the parser's events, with its own stack of what is open.
class ValueBuilder {
 public:
  // True once the value is whole.
  bool done() const { return done_; }
  nlohmann::json Take() { return std::move(root_); }

  absl::Status Add(const yaml_event_t& event) {
    switch (event.type) {
      case YAML_SCALAR_EVENT:
        return AddScalar(event);
      case YAML_MAPPING_START_EVENT:
        return Begin(nlohmann::json::object());
      case YAML_SEQUENCE_START_EVENT:
        return Begin(nlohmann::json::array());
      case YAML_MAPPING_END_EVENT:
      case YAML_SEQUENCE_END_EVENT:
        return End();
      case YAML_ALIAS_EVENT:
        return Refused("an alias");
      default:
        return absl::OkStatus();
    }
  }

 private:
  struct Open {
    nlohmann::json value;
    std::string key;  // of an object: whose value comes next
    bool has_key = false;
  };

  absl::Status AddScalar(const yaml_event_t& event) {
    const auto& scalar = event.data.scalar;
    std::string text(reinterpret_cast<const char*>(scalar.value), scalar.length);
    if (!open_.empty() && open_.back().value.is_object() && !open_.back().has_key) {
      open_.back().key = std::move(text);
      open_.back().has_key = true;
      return absl::OkStatus();
    }
    return Place(scalar.style == YAML_PLAIN_SCALAR_STYLE ? PlainScalar(text)
                                                         : nlohmann::json(std::move(text)));
  }

  absl::Status Begin(nlohmann::json empty) {
    if (open_.size() >= kMaxDepth) return Refused("nested too deep");
    if (!open_.empty() && open_.back().value.is_object() && !open_.back().has_key) {
      return Refused("a key that is no text");
    }
    open_.push_back({std::move(empty)});
    return absl::OkStatus();
  }

  absl::Status End() {
    nlohmann::json value = std::move(open_.back().value);
    open_.pop_back();
    return Place(std::move(value));
  }

  absl::Status Place(nlohmann::json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      done_ = true;
    } else if (open_.back().value.is_array()) {
      open_.back().value.push_back(std::move(value));
    } else {
      open_.back().value[open_.back().key] = std::move(value);
      open_.back().has_key = false;
    }
    return absl::OkStatus();
  }

  std::vector<Open> open_;
  nlohmann::json root_;
  bool done_ = false;
};

absl::StatusOr<nlohmann::json> ParseYaml(const std::string& text) {
  yaml_parser_t parser;
  if (yaml_parser_initialize(&parser) == 0) return absl::ResourceExhaustedError("no memory");
  const std::unique_ptr<yaml_parser_t, void (*)(yaml_parser_t*)> owner(&parser,
                                                                      yaml_parser_delete);
  yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&parser, reinterpret_cast<const unsigned char*>(text.data()),
                               text.size());
  ValueBuilder builder;
  while (!builder.done()) {
    yaml_event_t event;
    if (yaml_parser_parse(&parser, &event) == 0) {
      return Refused(absl::StrCat("not YAML: ", parser.problem == nullptr ? "" : parser.problem,
                                  " at line ", parser.problem_mark.line + 1));
    }
    const bool ended = event.type == YAML_STREAM_END_EVENT;
    const absl::Status added = builder.Add(event);
    yaml_event_delete(&event);
    ODMOE_RETURN_IF_ERROR(added);
    if (ended) return nlohmann::json::object();
  }
  return builder.Take();
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseModelCard(absl::string_view readme) {
  const std::vector<absl::string_view> lines = absl::StrSplit(readme, '\n');
  std::vector<absl::string_view> card;
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool fence = absl::StripSuffix(lines[i], "\r") == "---";
    if (i == 0 && !fence) return nlohmann::json::object();
    if (i > 0 && fence) break;
    if (i > 0) card.push_back(absl::StripSuffix(lines[i], "\r"));
  }
  std::string text = absl::StrCat(absl::StrJoin(card, "\n"), "\n");
  if (FirstInvalidUtf8(text) != text.size()) return Refused("not UTF-8");
  // "no" is Norwegian in a list of languages, and tabs stand in cards although YAML forbids them.
  text = absl::StrReplaceAll(text, {{"- no\n", "- \"no\"\n"}, {"\t", "  "}});
  ODMOE_ASSIGN_OR_RETURN(nlohmann::json value, ParseYaml(text));
  if (value.is_null()) return nlohmann::json::object();
  if (!value.is_object()) return Refused("not an object");
  return value;
}

nlohmann::json ReadModelCard(FileSystem& fs, const std::string& folder) {
  const auto file = fs.OpenForRead(absl::StrCat(folder, "/README.md"));
  if (!file.ok()) return nlohmann::json::object();
  std::string text(std::min((*file)->size(), kMaxCardBytes), '\0');
  const absl::Status read =
      (*file)->ReadAt(0, absl::MakeSpan(reinterpret_cast<std::byte*>(text.data()), text.size()));
  if (!read.ok()) return nlohmann::json::object();
  // A card describes the model and is no part of it: a damaged one must not stand in the way.
  return ParseModelCard(text).value_or(nlohmann::json::object());
}

}  // namespace odmoe
