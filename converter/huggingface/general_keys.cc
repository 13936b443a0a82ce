#include "converter/huggingface/general_keys.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "converter/huggingface/model_card.h"
#include "converter/huggingface/model_id.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxGenerationConfigBytes = uint64_t{1} << 20;

struct SamplingKey {
  const char* from;        // in generation_config.json
  absl::string_view to;
  GgufType type;
};

constexpr SamplingKey kSamplingKeys[] = {
    {"sequence", "general.sampling.sequence", GgufType::kString},
    {"top_k", "general.sampling.top_k", GgufType::kI32},
    {"top_p", "general.sampling.top_p", GgufType::kF32},
    {"min_p", "general.sampling.min_p", GgufType::kF32},
    {"xtc_probability", "general.sampling.xtc_probability", GgufType::kF32},
    {"xtc_threshold", "general.sampling.xtc_threshold", GgufType::kF32},
    {"temperature", "general.sampling.temp", GgufType::kF32},
    {"penalty_last_n", "general.sampling.penalty_last_n", GgufType::kI32},
    {"penalty_repeat", "general.sampling.penalty_repeat", GgufType::kF32},
    {"mirostat", "general.sampling.mirostat", GgufType::kI32},
    {"mirostat_tau", "general.sampling.mirostat_tau", GgufType::kF32},
    {"mirostat_eta", "general.sampling.mirostat_eta", GgufType::kF32},
};

absl::Status AddSamplingKeys(FileSystem& fs, const std::string& folder, GgufMetadata& metadata) {
  const std::string path = absl::StrCat(folder, "/generation_config.json");
  const auto json = ReadJsonFile(fs, path, kMaxGenerationConfigBytes);
  if (absl::IsNotFound(json.status())) return absl::OkStatus();
  if (!json.ok()) return json.status();
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(*json, path));
  for (const SamplingKey& key : kSamplingKeys) {
    if (!object.Has(key.from)) continue;
    GgufValue value;
    if (key.type == GgufType::kString) {
      ODMOE_ASSIGN_OR_RETURN(std::string text, object.String(key.from));
      value = GgufValue::String(std::move(text));
    } else if (key.type == GgufType::kI32) {
      ODMOE_ASSIGN_OR_RETURN(const int64_t number, object.Int(key.from, -(1 << 30), 1 << 30));
      value = GgufValue::I32(static_cast<int32_t>(number));
    } else {
      ODMOE_ASSIGN_OR_RETURN(const double number, object.Double(key.from));
      value = GgufValue::F32(static_cast<float>(number));
    }
    metadata.Set(std::string(key.to), std::move(value));
  }
  return absl::OkStatus();
}

// The texts of a card's member: itself, or a list's elements.
std::vector<std::string> Texts(const nlohmann::json& card, const char* key) {
  std::vector<std::string> texts;
  const auto found = card.find(key);
  if (found == card.end()) return texts;
  if (found->is_string()) texts.push_back(found->get<std::string>());
  if (!found->is_array()) return texts;
  for (const nlohmann::json& element : *found) {
    if (element.is_string()) texts.push_back(element.get<std::string>());
  }
  return texts;
}

// The first of `keys` that is a text.
std::optional<std::string> FirstText(const nlohmann::json& card,
                                     std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const auto found = card.find(key);
    if (found != card.end() && found->is_string()) return found->get<std::string>();
  }
  return std::nullopt;
}

// What is known of a model, in the words of its keys.
struct Description {
  std::optional<std::string> name, author, version, organization, finetune, basename, description,
      size_label, license, license_name, license_link, url, doi, uuid, repo_url;
};

Description DescribeByCard(const nlohmann::json& card) {
  Description d;
  d.name = FirstText(card, {"name", "model_name"});
  d.author = FirstText(card, {"author", "model_author", "model_creator"});
  d.version = FirstText(card, {"version", "model_version"});
  d.organization = FirstText(card, {"organization", "model_organization"});
  d.description = FirstText(card, {"description", "model_description"});
  d.finetune = FirstText(card, {"finetune", "model_finetune"});
  d.basename = FirstText(card, {"basename", "model_basename", "model_type"});
  d.size_label = FirstText(card, {"size_label", "model_size_label"});
  d.url = FirstText(card, {"url", "model_url"});
  d.doi = FirstText(card, {"doi", "model_doi"});
  d.uuid = FirstText(card, {"uuid", "model_uuid"});
  d.repo_url = FirstText(card, {"repo_url", "model_repo_url"});
  if (const auto licenses = Texts(card, "license"); !licenses.empty()) {
    d.license = absl::StrJoin(licenses, ",");
  }
  d.license_name = FirstText(card, {"license_name"});
  d.license_link = FirstText(card, {"license_link"});
  return d;
}

// Fills what is not known yet with what the id lets one guess.
void CompleteById(const std::string& id, int64_t parameters, Description& d) {
  const ModelIdParts parts = ParseModelId(id, parameters);
  const auto fill = [](std::optional<std::string>& known, std::optional<std::string> guess) {
    if (!known.has_value()) known = std::move(guess);
  };
  fill(d.name, TitleOfId(parts.full_name));
  if (parts.organization.has_value()) fill(d.organization, TitleOfId(*parts.organization));
  fill(d.basename, parts.basename);
  fill(d.finetune, parts.finetune);
  fill(d.version, parts.version);
  fill(d.size_label, parts.size_label);
}

void AddDescription(const Description& d, GgufMetadata& metadata) {
  const auto add = [&](const char* key, const std::optional<std::string>& value) {
    // gguf has no key without a value.
    if (value.has_value()) metadata.Set(key, GgufValue::String(*value));
  };
  add("general.name", d.name);
  add("general.author", d.author);
  add("general.version", d.version);
  add("general.organization", d.organization);
  add("general.finetune", d.finetune);
  add("general.basename", d.basename);
  add("general.description", d.description);
  add("general.size_label", d.size_label);
  add("general.license", d.license);
  add("general.license.name", d.license_name);
  add("general.license.link", d.license_link);
  add("general.source.url", d.url);
  add("general.source.doi", d.doi);
  add("general.source.uuid", d.uuid);
  add("general.source.repo_url", d.repo_url);
}

// The models or data sets this one comes from: a card names each by id or address.
void AddSources(const nlohmann::json& card, std::initializer_list<const char*> keys,
                const std::string& prefix, int64_t parameters, GgufMetadata& metadata) {
  const auto key = std::find_if(keys.begin(), keys.end(),
                                [&](const char* name) { return card.contains(name); });
  if (key == keys.end()) return;
  constexpr absl::string_view kHub = "https://huggingface.co/";
  const std::vector<std::string> sources = Texts(card, *key);
  metadata.Set(prefix + ".count", GgufValue::U32(static_cast<uint32_t>(sources.size())));
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto add = [&](const char* name, const std::string& value) {
      metadata.Set(absl::StrCat(prefix, ".", i, ".", name), GgufValue::String(value));
    };
    absl::string_view id = sources[i];
    bool address = false;
    for (absl::string_view scheme : {"http://", "https://", "ssh://"}) {
      address = address || absl::StartsWith(id, scheme);
    }
    bool known = !address;
    if (address && (absl::ConsumePrefix(&id, kHub) ||
                    absl::ConsumePrefix(&id, "http://huggingface.co/"))) {
      known = std::count(id.begin(), id.end(), '/') == 1 && id.front() != '/' && id.back() != '/';
    }
    if (known) {
      const ModelIdParts parts = ParseModelId(id, parameters);
      add("name", TitleOfId(parts.full_name));
      if (parts.version.has_value()) add("version", *parts.version);
      if (parts.organization.has_value()) add("organization", TitleOfId(*parts.organization));
      if (!address && parts.organization.has_value()) {
        add("repo_url", absl::StrCat(kHub, *parts.organization, "/", parts.full_name));
      }
    }
    if (address) add("repo_url", sources[i]);
  }
}

void AddList(const nlohmann::json& card, std::initializer_list<const char*> keys,
             const char* to, GgufMetadata& metadata) {
  std::vector<std::string> all;
  for (const char* key : keys) {
    for (std::string& text : Texts(card, key)) all.push_back(std::move(text));
  }
  if (!all.empty()) metadata.Set(to, GgufValue::Strings(std::move(all)));
}

std::string FolderName(const std::string& folder) {
  std::filesystem::path path = std::filesystem::absolute(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

// Two digits at least: "5.6M", "671B".
std::string RoundedCount(double count) {
  constexpr std::pair<double, char> kUnits[] = {{1e-12, 'T'}, {1e-9, 'B'}, {1e-6, 'M'}};
  double scaled = count * 1e-3;
  char suffix = 'K';
  for (const auto& [unit, letter] : kUnits) {
    if (count > std::nearbyint(1.0 / unit)) {
      scaled = count * unit;
      suffix = letter;
      break;
    }
  }
  const double rounded = std::nearbyint(scaled);
  const int digits = rounded < 1 ? 0 : static_cast<int>(absl::StrCat(int64_t(rounded)).size());
  return absl::StrFormat("%.*f%c", std::max(2 - digits, 0), scaled, suffix);
}

}  // namespace

ParameterCount CountParameters(const std::vector<GgufTensor>& tensors) {
  ParameterCount count;
  int64_t stacked_experts = 0, stacks = 0, rank_columns = 0;
  bool adapter = false;
  for (const GgufTensor& tensor : tensors) {
    if (absl::EndsWith(tensor.name, ".lora_a")) {
      rank_columns = tensor.columns();
      adapter = true;
      continue;
    }
    // An adapter's pair stands for the matrix it changes.
    const int64_t columns =
        absl::EndsWith(tensor.name, ".lora_b") ? rank_columns : tensor.columns();
    const int64_t elements = columns * tensor.rows();
    count.total += elements;
    if (absl::StrContains(tensor.name, "_exps.") && tensor.ne.size() == 3) {
      count.expert += elements / tensor.ne[2];
      stacked_experts += tensor.ne[2];
      ++stacks;
    } else {
      count.shared += elements;
    }
  }
  if (stacks > 0) count.expert_count = stacked_experts / stacks;
  if (adapter) count.total = -count.total;
  return count;
}

std::string SizeLabel(const ParameterCount& count) {
  const std::string size =
      RoundedCount(static_cast<double>(count.expert_count > 0 ? count.shared + count.expert
                                                              : std::abs(count.total)));
  return count.expert_count > 0 ? absl::StrCat(count.expert_count, "x", size) : size;
}

absl::Status AddGeneralKeys(FileSystem& fs, const std::string& folder,
                            const std::string& name_or_path,
                            const std::vector<GgufTensor>& tensors, GgufMetadata& metadata) {
  ODMOE_RETURN_IF_ERROR(AddSamplingKeys(fs, folder, metadata));
  const nlohmann::json card = ReadModelCard(fs, folder);
  const ParameterCount parameters = CountParameters(tensors);
  Description description = DescribeByCard(card);
  // With more than one slash it is a path on some machine and no model's id.
  if (!name_or_path.empty() && std::count(name_or_path.begin(), name_or_path.end(), '/') <= 1) {
    CompleteById(name_or_path, parameters.total, description);
  }
  CompleteById(FolderName(folder), parameters.total, description);
  if (!description.size_label.has_value() && parameters.total > 0) {
    description.size_label = SizeLabel(parameters);
  }
  AddDescription(description, metadata);
  AddSources(card, {"base_model", "base_models", "base_model_sources"}, "general.base_model",
             parameters.total, metadata);
  AddSources(card, {"datasets", "dataset", "dataset_sources"}, "general.dataset", parameters.total,
             metadata);
  AddList(card, {"tags", "pipeline_tag"}, "general.tags", metadata);
  AddList(card, {"languages", "language"}, "general.languages", metadata);
  return absl::OkStatus();
}

}  // namespace odmoe
