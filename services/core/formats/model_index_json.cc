#include "services/core/formats/model_index_json.h"

#include <limits>

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {

std::vector<int64_t> ReversedShape(const std::vector<int64_t>& shape) {
  return {shape.rbegin(), shape.rend()};
}

bool IsPlainName(absl::string_view name) {
  if (name.empty() || name[0] == '.' || name.size() > 128) return false;
  for (char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '-' && c != '.') {
      return false;
    }
  }
  return true;
}

absl::StatusOr<std::vector<int64_t>> ReadShape(const JsonObject& object) {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* shape, object.Array("shape"));
  std::vector<int64_t> values;
  for (const nlohmann::json& n : *shape) {
    if (!n.is_number_unsigned() ||
        n.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return object.Wrong("shape", "an array of non-negative integers");
    }
    values.push_back(n.get<int64_t>());
  }
  return values;
}

absl::StatusOr<DType> ReadDType(const JsonObject& object) {
  ODMOE_ASSIGN_OR_RETURN(const std::string name, object.String("dtype"));
  const auto info = FindDType(absl::string_view(name));
  if (!info.ok()) return object.Wrong("dtype", "a weight format");
  return info->dtype;
}

absl::StatusOr<std::string> ReadModelDigest(const JsonObject& object) {
  ODMOE_ASSIGN_OR_RETURN(std::string digest, object.String("model_digest"));
  if (!IsPlainName(digest)) return object.Wrong("model_digest", "a hex digest");
  return digest;
}

absl::StatusOr<uint64_t> ReadXxh3(const JsonObject& object) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, object.String("xxh3"));
  uint64_t hash = 0;
  if (text.size() != 16 || !absl::SimpleHexAtoi(text, &hash)) {
    return object.Wrong("xxh3", "16 hex digits");
  }
  return hash;
}

absl::Status CheckModelVersion(const JsonObject& object) {
  ODMOE_ASSIGN_OR_RETURN(const std::string format, object.String("format"));
  if (format != kModelFormatName) {
    return object.Wrong("format", absl::StrCat("'", kModelFormatName, "'"));
  }
  return object.Int("version", kModelFormatVersion, kModelFormatVersion).status();
}

}  // namespace odmoe
