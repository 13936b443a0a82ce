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
};

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

// What each role's token is, and whether it is added to a text; by the row in kRoles.
struct Roles {
  std::string text[std::size(kRoles)];
  std::optional<bool> added[std::size(kRoles)];

  std::string& Text(absl::string_view role) { return text[RowOf(role)]; }
  std::optional<bool>& Added(absl::string_view role) { return added[RowOf(role)]; }
  static size_t RowOf(absl::string_view role) {
    size_t row = 0;
    while (kRoles[row].name != role) ++row;
    return row;
  }
};

// tokenizer.json's post-processor names the tokens put around a text.
void ReadTemplate(const nlohmann::json& processor, Roles& roles) {
  if (StringOr(FindMember(processor, "type"), "") != "TemplateProcessing") return;
  const nlohmann::json* single = FindMember(processor, "single");
  if (single == nullptr || !single->is_array() || single->size() < 2) return;
  if (const std::string first = TemplateToken(single->front()); !first.empty()) {
    roles.Added("bos") = first == roles.Text("bos") || first == roles.Text("cls");
  }
  if (const std::string last = TemplateToken(single->back()); !last.empty()) {
    if (last != roles.Text("eos")) {
      // The text ends with another token than a turn does.
      roles.Text("eot") = std::exchange(roles.Text("eos"), last);
    }
    roles.Added("eos") = true;
  }
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
  Roles roles;
  for (const Role& role : kRoles) roles.Text(role.name) = TokenText(config, role.name);
  if (roles.Text("bos").empty()) roles.Text("bos") = roles.Text("cls");
  if (roles.Text("eos").empty()) roles.Text("eos") = roles.Text("sep");
  ReadPostProcessor(tokenizer, roles);
  for (const Role& role : kRoles) {
    const nlohmann::json* flag = FindMember(config, absl::StrCat("add_", role.name, "_token"));
    if (flag != nullptr && flag->is_boolean()) roles.Added(role.name) = flag->get<bool>();
  }
  for (const Role& role : kRoles) {
    std::optional<int64_t> id = FindId(added, roles.Text(role.name));
    const nlohmann::json* in_config =
        FindMember(checkpoint.config(), absl::StrCat(role.name, "_token_id"));
    if (!id && in_config != nullptr && in_config->is_number_unsigned() &&
        in_config->get<uint64_t>() < static_cast<uint64_t>(vocabulary_size)) {
      id = in_config->get<int64_t>();
    }
    if (!id || *id < 0 || *id >= vocabulary_size) continue;
    metadata.Set(std::string(role.id_key), GgufValue::U32(static_cast<uint32_t>(*id)));
  }
  for (const Role& role : kRoles) {
    const std::optional<bool> flag = roles.Added(role.name);
    if (flag && !role.add_key.empty()) {
      metadata.Set(std::string(role.add_key), GgufValue::Bool(*flag));
    }
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
