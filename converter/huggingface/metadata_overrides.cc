#include "converter/huggingface/metadata_overrides.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{16} << 20;

absl::Status Refused(const std::string& key, const std::string& value, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("metadata ", key, "=", value.substr(0, 80), ": should be ", expected));
}

// "KEY=TYPE:VALUE" taken apart.
absl::StatusOr<MetadataOverride> ParseLine(absl::string_view line, const std::string& where) {
  const size_t equals = line.find('=');
  if (equals == absl::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": '", line.substr(0, 80), "' should be KEY=VALUE"));
  }
  MetadataOverride entry;
  entry.key = std::string(absl::StripAsciiWhitespace(line.substr(0, equals)));
  absl::string_view value = absl::StripAsciiWhitespace(line.substr(equals + 1));
  if (const size_t colon = value.find(':'); colon != absl::string_view::npos) {
    const auto type = FindGgufType(value.substr(0, colon));
    if (type.ok() && *type != GgufType::kArray) {
      entry.type = *type;
      value.remove_prefix(colon + 1);
    }
  }
  entry.value = std::string(value);
  return entry;
}

absl::Status ReadObject(const nlohmann::json& json, const std::string& path,
                        std::vector<MetadataOverride>& entries) {
  ODMOE_RETURN_IF_ERROR(JsonObject::From(json, path).status());
  for (const auto& [key, value] : json.items()) {
    MetadataOverride entry{.key = key};
    if (value.is_string()) {
      entry.type = GgufType::kString;
      entry.value = value.get<std::string>();
    } else {
      entry.value = value.dump();
    }
    entries.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

absl::Status ReadFile(FileSystem& fs, const std::string& path,
                      std::vector<MetadataOverride>& entries) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(fs, path, kMaxFileBytes));
  if (absl::StartsWith(absl::StripLeadingAsciiWhitespace(text), "{")) {
    ODMOE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
    return ReadObject(json, path, entries);
  }
  size_t number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    ODMOE_ASSIGN_OR_RETURN(MetadataOverride entry,
                           ParseLine(line, absl::StrCat(path, " line ", number)));
    entries.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

struct IntRange {
  GgufType type;
  int64_t least;
  uint64_t most;
};
constexpr IntRange kIntRanges[] = {
    {GgufType::kU8, 0, 0xff}, {GgufType::kU16, 0, 0xffff}, {GgufType::kU32, 0, 0xffffffff},
    {GgufType::kU64, 0, std::numeric_limits<uint64_t>::max()},
    {GgufType::kI8, -0x80, 0x7f}, {GgufType::kI16, -0x8000, 0x7fff},
    {GgufType::kI32, std::numeric_limits<int32_t>::min(), 0x7fffffff},
    {GgufType::kI64, std::numeric_limits<int64_t>::min(), 0x7fffffffffffffff},
};

absl::StatusOr<GgufValue> ParseInt(const MetadataOverride& entry, const IntRange& range) {
  GgufValue value{.type = range.type};
  int64_t negative = 0;
  uint64_t positive = 0;
  if (range.least == 0 && absl::SimpleAtoi(entry.value, &positive) && positive <= range.most) {
    value.scalar = positive;
  } else if (range.least < 0 && absl::SimpleAtoi(entry.value, &negative) &&
             negative >= range.least &&
             (negative < 0 || static_cast<uint64_t>(negative) <= range.most)) {
    value.scalar = negative;
  } else {
    return Refused(entry.key, entry.value, absl::StrCat("an integer of type ",
                                                        GgufTypeName(range.type)));
  }
  return value;
}

absl::StatusOr<GgufValue> ParseScalar(const MetadataOverride& entry, GgufType type) {
  for (const IntRange& range : kIntRanges) {
    if (range.type == type) return ParseInt(entry, range);
  }
  double number = 0;
  bool truth = false;
  switch (type) {
    case GgufType::kF32:
    case GgufType::kF64:
      if (!absl::SimpleAtod(entry.value, &number)) break;
      if (type == GgufType::kF32) return GgufValue::F32(static_cast<float>(number));
      return GgufValue{.type = type, .scalar = number};
    case GgufType::kBool:
      if (!absl::SimpleAtob(entry.value, &truth)) break;
      return GgufValue::Bool(truth);
    case GgufType::kString:
      if (FirstInvalidUtf8(entry.value) != entry.value.size()) break;
      return GgufValue::String(entry.value);
    default:
      break;
  }
  return Refused(entry.key, entry.value, absl::StrCat("of type ", GgufTypeName(type)));
}

// A JSON array of texts, integers or numbers.
absl::StatusOr<GgufValue> ParseList(const MetadataOverride& entry) {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json list,
                         ParseJson(entry.value, absl::StrCat("metadata ", entry.key)));
  const auto all = [&](auto predicate) {
    return std::all_of(list.begin(), list.end(), predicate);
  };
  if (list.is_array() && !list.empty()) {
    if (all([](const auto& e) { return e.is_string(); })) {
      return GgufValue::Strings(list.get<std::vector<std::string>>());
    }
    const auto narrow = [](const nlohmann::json& e) {
      return e.is_number_integer() &&
             (!e.is_number_unsigned() || e.get<uint64_t>() <= 0x7fffffff) &&
             e.get<int64_t>() >= std::numeric_limits<int32_t>::min();
    };
    if (all(narrow)) return GgufValue::I32s(list.get<std::vector<int64_t>>());
    if (all([](const auto& e) { return e.is_number(); })) {
      return GgufValue::F32s(list.get<std::vector<double>>());
    }
  }
  return Refused(entry.key, entry.value, "a list of texts or of numbers");
}

absl::StatusOr<GgufValue> Guess(const MetadataOverride& entry) {
  if (absl::StartsWith(entry.value, "[")) return ParseList(entry);
  if (entry.value == "true" || entry.value == "false") return ParseScalar(entry, GgufType::kBool);
  uint64_t positive = 0;
  int64_t integer = 0;
  double number = 0;
  if (absl::SimpleAtoi(entry.value, &positive) && positive <= 0xffffffff) {
    return ParseScalar(entry, GgufType::kU32);
  }
  if (absl::SimpleAtoi(entry.value, &integer)) return ParseScalar(entry, GgufType::kI64);
  if (absl::SimpleAtod(entry.value, &number) && std::isfinite(number)) {
    return ParseScalar(entry, GgufType::kF32);
  }
  return ParseScalar(entry, GgufType::kString);
}

}  // namespace

absl::StatusOr<std::vector<MetadataOverride>> ReadMetadataOverrides(
    FileSystem& fs, const std::vector<std::string>& arguments) {
  std::vector<MetadataOverride> entries;
  for (const std::string& argument : arguments) {
    if (!absl::StrContains(argument, '=')) {
      ODMOE_RETURN_IF_ERROR(ReadFile(fs, argument, entries));
      continue;
    }
    ODMOE_ASSIGN_OR_RETURN(MetadataOverride entry, ParseLine(argument, "metadata"));
    entries.push_back(std::move(entry));
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].key.empty()) return absl::InvalidArgumentError("metadata: a key is empty");
    for (size_t j = 0; j < i; ++j) {
      if (entries[i].key != entries[j].key) continue;
      return absl::InvalidArgumentError(absl::StrCat("metadata ", entries[i].key,
                                                     " is set twice: to ", entries[j].value,
                                                     " and to ", entries[i].value));
    }
  }
  return entries;
}

absl::Status ApplyMetadataOverrides(const std::vector<MetadataOverride>& overrides,
                                    GgufMetadata& metadata) {
  for (const MetadataOverride& entry : overrides) {
    const GgufValue* replaced = metadata.Find(entry.key);
    absl::StatusOr<GgufValue> value;
    if (entry.type.has_value()) {
      value = ParseScalar(entry, *entry.type);
    } else if (replaced != nullptr && !replaced->is_array) {
      value = ParseScalar(entry, replaced->type);
    } else {
      value = Guess(entry);
    }
    ODMOE_RETURN_IF_ERROR(value.status());
    metadata.Set(entry.key, *std::move(value));
  }
  return absl::OkStatus();
}

}  // namespace odmoe
