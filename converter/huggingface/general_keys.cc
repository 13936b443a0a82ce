#include "converter/huggingface/general_keys.h"

#include <cmath>
#include <filesystem>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;

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

absl::Status AddSamplingKeys(const Checkpoint& checkpoint, GgufMetadata& metadata) {
  const std::string path = absl::StrCat(checkpoint.folder(), "/generation_config.json");
  const auto json = ReadJsonFile(checkpoint.file_system(), path, kMaxConfigBytes);
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

// A word of lower-case letters gets a capital after each non-letter; acronyms, numbers and versions
// such as "v1.5" stay.
std::string TitleWord(absl::string_view word) {
  bool lower = false;
  for (char c : word) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c))) return std::string(word);
    lower = lower || absl::ascii_islower(static_cast<unsigned char>(c));
  }
  const bool digit_first = absl::ascii_isdigit(static_cast<unsigned char>(word[0]));
  const bool version = word[0] == 'v' && word.size() > 1 &&
                       word.find_first_not_of("0123456789.", 1) == absl::string_view::npos;
  if (!lower || digit_first || version) return std::string(word);
  std::string title(word);
  bool after_letter = false;
  for (char& c : title) {
    if (!after_letter) c = absl::ascii_toupper(static_cast<unsigned char>(c));
    after_letter = absl::ascii_isalpha(static_cast<unsigned char>(c));
  }
  return title;
}

std::string TitleOf(const std::string& folder) {
  std::filesystem::path path = std::filesystem::absolute(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  std::vector<std::string> words;
  for (absl::string_view word :
       absl::StrSplit(path.filename().string(), absl::ByAnyChar("- \t"), absl::SkipEmpty())) {
    words.push_back(TitleWord(word));
  }
  return absl::StrJoin(words, " ");
}

// Two digits at least: "5.6M", "671B".
std::string RoundedCount(double count) {
  constexpr std::pair<double, char> kUnits[] = {{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}};
  double scaled = count * 1e-3;
  char suffix = 'K';
  for (const auto& [unit, letter] : kUnits) {
    if (count > unit) {
      scaled = count / unit;
      suffix = letter;
      break;
    }
  }
  const double rounded = std::nearbyint(scaled);
  const int digits = rounded < 1 ? 0 : static_cast<int>(absl::StrCat(int64_t(rounded)).size());
  return absl::StrFormat("%.*f%c", std::max(2 - digits, 0), scaled, suffix);
}

}  // namespace

std::string SizeLabel(const std::vector<GgufTensor>& tensors) {
  double shared = 0, expert = 0;
  int64_t stacked_experts = 0, stacks = 0;
  for (const GgufTensor& tensor : tensors) {
    const double elements = double(tensor.columns()) * double(tensor.rows());
    if (absl::StrContains(tensor.name, "_exps.") && tensor.ne.size() == 3) {
      expert += elements / double(tensor.ne[2]);
      stacked_experts += tensor.ne[2];
      ++stacks;
    } else {
      shared += elements;
    }
  }
  const std::string size = RoundedCount(shared + expert);
  return stacks == 0 ? size : absl::StrCat(stacked_experts / stacks, "x", size);
}

absl::Status AddGeneralKeys(const Checkpoint& checkpoint, const std::vector<GgufTensor>& tensors,
                            GgufMetadata& metadata) {
  metadata.Set("general.type", GgufValue::String("model"));
  ODMOE_RETURN_IF_ERROR(AddSamplingKeys(checkpoint, metadata));
  metadata.Set("general.name", GgufValue::String(TitleOf(checkpoint.folder())));
  metadata.Set("general.size_label", GgufValue::String(SizeLabel(tensors)));
  return absl::OkStatus();
}

}  // namespace odmoe
