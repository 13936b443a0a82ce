#include "converter/huggingface/special_tokens.h"

#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxTemplateBytes = uint64_t{16} << 20;

// A role of a special token: its name in Hugging Face's files and its GGUF keys.
struct Role {
  absl::string_view name;
  absl::string_view id_key;
  absl::string_view add_key;  // "" where there is no such flag
};

constexpr Role kRoles[] = {
    {"bos", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token"},
    {"eos", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_eos_token"},
    {"unk", "tokenizer.ggml.unknown_token_id", ""},
    {"sep", "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.add_sep_token"},
    {"pad", "tokenizer.ggml.padding_token_id", ""},
    {"cls", "tokenizer.ggml.cls_token_id", ""},
    {"mask", "tokenizer.ggml.mask_token_id", ""},
    {"eot", "tokenizer.ggml.eot_token_id", ""},
    {"eom", "tokenizer.ggml.eom_token_id", ""},
};

size_t RowOf(absl::string_view role) {
  size_t row = 0;
  while (kRoles[row].name != role) ++row;
  return row;
}

const nlohmann::json* FindMember(const nlohmann::json& object, const std::string& key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

std::string StringOr(const nlohmann::json* json, std::string otherwise) {
  return json != nullptr && json->is_string() ? json->get<std::string>() : otherwise;
}

// "bos_token": a string, or an object with its content.
std::string TokenText(const nlohmann::json& config, absl::string_view role) {
  const nlohmann::json* entry = FindMember(config, absl::StrCat(role, "_token"));
  if (entry != nullptr && entry->is_object()) entry = FindMember(*entry, "content");
  return StringOr(entry, "");
}

// The special token at an end of a template, "" where it has none.
std::string TemplateToken(const nlohmann::json& piece) {
  const nlohmann::json* special = FindMember(piece, "SpecialToken");
  return special == nullptr ? "" : StringOr(FindMember(*special, "id"), "");
}

// What each role's token is, and whether it is added to a text.
struct Roles {
  std::string text[std::size(kRoles)];
  std::vector<std::pair<size_t, bool>> added;  // by row; in the order they became known

  std::string& Text(absl::string_view role) { return text[RowOf(role)]; }
  void SetAdded(size_t row, bool value) {
    for (auto& [known, flag] : added) {
      if (known == row) {
        flag = value;
        return;
      }
    }
    added.emplace_back(row, value);
  }
  void SetAdded(absl::string_view role, bool value) { SetAdded(RowOf(role), value); }
};

// RobertaProcessing: its two special tokens, around a text and between two.
void ReadRoberta(const nlohmann::json& processor, Roles& roles) {
  for (absl::string_view role : {"bos", "eos", "sep"}) roles.SetAdded(role, true);
  const auto name = [&](const char* key, const std::string& otherwise) {
    const nlohmann::json* entry = FindMember(processor, key);
    return entry != nullptr && entry->is_array() && !entry->empty() ? StringOr(&entry->front(), "")
                                                                    : otherwise;
  };
  if (roles.Text("cls").empty()) roles.Text("cls") = name("cls", roles.Text("bos"));
  if (roles.Text("sep").empty()) roles.Text("sep") = name("sep", roles.Text("eos"));
}

// Whether a pair of texts has a separator of its own between them, beside the end of the first.
void ReadPair(const nlohmann::json& processor, const std::string& first, const std::string& last,
              Roles& roles) {
  const nlohmann::json* pair = FindMember(processor, "pair");
  if (pair == nullptr || !pair->is_array() || pair->empty()) return;
  size_t begin = !first.empty() && TemplateToken(pair->front()) == first ? 1 : 0;
  size_t end = pair->size();
  if (!last.empty() && TemplateToken(pair->back()) == last) --end;
  const auto is_sequence = [&](size_t at, absl::string_view id) {
    const nlohmann::json* sequence = FindMember((*pair)[at], "Sequence");
    return sequence != nullptr && StringOr(FindMember(*sequence, "id"), "") == id;
  };
  if (begin + 2 >= end || !is_sequence(begin, "A") || !is_sequence(end - 1, "B")) return;
  const auto separates = [&](size_t at) {
    const std::string token = TemplateToken((*pair)[at]);
    return !token.empty() && (token == roles.Text("sep") || token == roles.Text("eos"));
  };
  const bool add = (separates(begin + 1) && last.empty()) ||
                   (end - begin == 4 && separates(begin + 2));
  roles.SetAdded("sep", add);
  if (add && roles.Text("sep").empty()) roles.Text("sep") = roles.Text("eos");
}

// tokenizer.json's post-processor names the tokens put around a text.
void ReadTemplate(const nlohmann::json& processor, Roles& roles) {
  const std::string type = StringOr(FindMember(processor, "type"), "");
  if (type == "RobertaProcessing") return ReadRoberta(processor, roles);
  if (type != "TemplateProcessing") return;
  std::string first, last;
  const nlohmann::json* single = FindMember(processor, "single");
  if (single != nullptr && single->is_array() && single->size() > 1) {
    first = TemplateToken(single->front());
    last = TemplateToken(single->back());
  }
  if (!first.empty()) {
    if (first != roles.Text("bos") && first != roles.Text("cls")) {
      for (absl::string_view role : {"bos", "cls"}) {
        if (roles.Text(role).empty()) roles.Text(role) = first;
      }
    }
    roles.SetAdded("bos", first == roles.Text("bos") || first == roles.Text("cls"));
  }
  if (!last.empty()) {
    if (last != roles.Text("eos")) {
      // The text ends with another token than a turn does.
      const absl::string_view before = roles.Text("eot").empty() ? "eot" : "eom";
      roles.Text(before) = std::exchange(roles.Text("eos"), last);
    }
    roles.SetAdded("eos", true);
  }
  ReadPair(processor, first, last, roles);
}

void ReadPostProcessor(const nlohmann::json& tokenizer, Roles& roles) {
  const nlohmann::json* processor = FindMember(tokenizer, "post_processor");
  if (processor == nullptr) return;
  const nlohmann::json* steps = FindMember(*processor, "processors");
  if (steps == nullptr || !steps->is_array()) return ReadTemplate(*processor, roles);
  for (const nlohmann::json& step : *steps) ReadTemplate(step, roles);
}

std::optional<int64_t> FindId(const std::vector<AddedToken>& added, const std::string& text) {
  for (const AddedToken& token : added) {
    if (!text.empty() && token.content == text) return token.id;
  }
  return std::nullopt;
}

void AddTemplate(absl::string_view name, const std::string& text, GgufMetadata& metadata,
                 std::vector<std::string>& names, std::string& main) {
  if (name == "default") {
    main = text;
    return;
  }
  std::string key_name(name);
  for (char& c : key_name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  if (key_name.empty()) return;
  metadata.Set(absl::StrCat("tokenizer.chat_template.", key_name), GgufValue::String(text));
  names.push_back(std::move(key_name));
}

void AddTemplateList(const nlohmann::json& list, GgufMetadata& metadata) {
  std::vector<std::string> names;
  std::string main;
  for (const nlohmann::json& choice : list) {
    const nlohmann::json* text = FindMember(choice, "template");
    if (text == nullptr || !text->is_string()) continue;
    AddTemplate(StringOr(FindMember(choice, "name"), ""), text->get<std::string>(), metadata, names,
                main);
  }
  if (!names.empty()) {
    metadata.Set("tokenizer.chat_templates", GgufValue::Strings(std::move(names)));
  }
  if (!main.empty()) metadata.Set("tokenizer.chat_template", GgufValue::String(main));
}

void AddTemplates(const nlohmann::json& templates, GgufMetadata& metadata) {
  if (templates.is_string()) {
    metadata.Set("tokenizer.chat_template", GgufValue::String(templates.get<std::string>()));
  } else if (templates.is_array()) {
    AddTemplateList(templates, metadata);
  }
}

// chat_template.jinja, with what is in additional_chat_templates/. Null: no such file.
absl::StatusOr<nlohmann::json> ReadJinjaFiles(const Checkpoint& checkpoint) {
  FileSystem& fs = checkpoint.file_system();
  auto main = ReadWholeFile(fs, absl::StrCat(checkpoint.folder(), "/chat_template.jinja"),
                            kMaxTemplateBytes);
  if (absl::IsNotFound(main.status())) return nlohmann::json();
  if (!main.ok()) return main.status();
  const std::string folder = absl::StrCat(checkpoint.folder(), "/additional_chat_templates");
  const auto names = fs.ListDirectory(folder);
  if (absl::IsNotFound(names.status())) return nlohmann::json(*main);
  if (!names.ok()) return names.status();
  nlohmann::json list = {{{"name", "default"}, {"template", *main}}};
  for (const std::string& name : *names) {
    if (!absl::EndsWith(name, ".jinja")) continue;
    ODMOE_ASSIGN_OR_RETURN(
        const std::string text,
        ReadWholeFile(fs, absl::StrCat(folder, "/", name), kMaxTemplateBytes));
    list.push_back({{"name", absl::StripSuffix(name, ".jinja")}, {"template", text}});
  }
  return list.size() == 1 ? nlohmann::json(*main) : list;
}

}  // namespace

void AddSpecialTokenKeys(const Checkpoint& checkpoint, const nlohmann::json& tokenizer,
                         const nlohmann::json& config, const std::vector<AddedToken>& added,
                         int64_t vocabulary_size, GgufMetadata& metadata) {
  // Where a text ends with another token than a turn, the template tells of the turn's end.
  constexpr absl::string_view kFromTemplate[] = {"eot", "eom"};
  Roles roles;
  for (const Role& role : kRoles) roles.Text(role.name) = TokenText(config, role.name);
  for (absl::string_view role : kFromTemplate) roles.Text(role).clear();
  if (roles.Text("bos").empty()) roles.Text("bos") = roles.Text("cls");
  if (roles.Text("eos").empty()) roles.Text("eos") = roles.Text("sep");
  ReadPostProcessor(tokenizer, roles);
  for (size_t row = 0; row < std::size(kRoles); ++row) {
    const nlohmann::json* flag =
        FindMember(config, absl::StrCat("add_", kRoles[row].name, "_token"));
    if (flag != nullptr && flag->is_boolean()) roles.SetAdded(row, flag->get<bool>());
  }
  const auto add_id = [&](const Role& role, std::optional<int64_t> id) {
    if (!id || *id < 0 || *id >= vocabulary_size || metadata.Find(role.id_key) != nullptr) return;
    metadata.Set(std::string(role.id_key), GgufValue::U32(static_cast<uint32_t>(*id)));
  };
  // First what the tokenizer's files say, then what config.json adds.
  for (const Role& role : kRoles) add_id(role, FindId(added, roles.Text(role.name)));
  for (const Role& role : kRoles) {
    const bool from_template = role.name == kFromTemplate[0] || role.name == kFromTemplate[1];
    if (from_template && roles.Text(role.name).empty()) continue;
    const nlohmann::json* id =
        FindMember(checkpoint.config(), absl::StrCat(role.name, "_token_id"));
    if (id != nullptr && id->is_number_unsigned() &&
        id->get<uint64_t>() < static_cast<uint64_t>(vocabulary_size)) {
      add_id(role, id->get<int64_t>());
    }
  }
  for (const auto& [row, flag] : roles.added) {
    if (kRoles[row].add_key.empty()) continue;
    metadata.Set(std::string(kRoles[row].add_key), GgufValue::Bool(flag));
  }
}

namespace {

void ReadNormalizer(const nlohmann::json& normalizer, int depth, std::optional<bool>& lowercase,
                    std::optional<bool>& strip_accents) {
  constexpr int kMaxDepth = 64;  // as deep as parsed JSON goes
  const std::string type = StringOr(FindMember(normalizer, "type"), "");
  const auto read = [&](const char* key, std::optional<bool>& flag) {
    const nlohmann::json* value = FindMember(normalizer, key);
    if (value != nullptr && value->is_boolean()) flag = value->get<bool>();
  };
  if (type == "Lowercase") lowercase = true;
  if (type == "StripAccents") strip_accents = true;
  if (type == "BertNormalizer") {
    read("lowercase", lowercase);
    read("strip_accents", strip_accents);
  }
  const nlohmann::json* steps = FindMember(normalizer, "normalizers");
  if (type != "Sequence" || steps == nullptr || !steps->is_array() || depth == kMaxDepth) return;
  for (const nlohmann::json& step : *steps) {
    ReadNormalizer(step, depth + 1, lowercase, strip_accents);
  }
}

}  // namespace

void AddNormalizerKeys(const nlohmann::json& tokenizer, GgufMetadata& metadata) {
  const nlohmann::json* normalizer = FindMember(tokenizer, "normalizer");
  if (normalizer == nullptr) return;
  std::optional<bool> lowercase, strip_accents;
  ReadNormalizer(*normalizer, 0, lowercase, strip_accents);
  if (lowercase) metadata.Set("tokenizer.ggml.normalizer.lowercase", GgufValue::Bool(*lowercase));
  if (strip_accents) {
    metadata.Set("tokenizer.ggml.normalizer.strip_accents", GgufValue::Bool(*strip_accents));
  }
}

absl::Status AddChatTemplateKeys(const Checkpoint& checkpoint, const nlohmann::json& config,
                                 GgufMetadata& metadata) {
  if (const nlohmann::json* templates = FindMember(config, "chat_template");
      templates != nullptr && !templates->is_null()) {
    AddTemplates(*templates, metadata);
    return absl::OkStatus();
  }
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json jinja, ReadJinjaFiles(checkpoint));
  if (!jinja.is_null()) {
    AddTemplates(jinja, metadata);
    return absl::OkStatus();
  }
  const auto json = ReadJsonFile(checkpoint.file_system(),
                                 absl::StrCat(checkpoint.folder(), "/chat_template.json"),
                                 kMaxTemplateBytes);
  if (absl::IsNotFound(json.status())) return absl::OkStatus();
  if (!json.ok()) return json.status();
  if (const nlohmann::json* templates = FindMember(*json, "chat_template"); templates != nullptr) {
    AddTemplates(*templates, metadata);
  }
  return absl::OkStatus();
}

}  // namespace odmoe
