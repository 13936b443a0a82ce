#include "services/core/formats/gguf_json.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

template <typename T>
std::string ShortestDecimal(T value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  std::string decimal(text, end);
  // Without a point it would be read as an integer, and -0 lose its sign.
  if (decimal.find_first_of(".e") == std::string::npos) decimal += ".0";
  return decimal;
}

double ParseDecimal(const std::string& text) {
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string EncodeFloat(GgufType type, double value) {
  if (!std::isfinite(value)) {
    return type == GgufType::kF64
               ? absl::StrFormat(R"({"bits":"%016x"})", std::bit_cast<uint64_t>(value))
               : absl::StrFormat(R"({"bits":"%08x"})", NarrowToF32Bits(value));
  }
  if (type == GgufType::kF32) {
    const uint32_t bits = NarrowToF32Bits(value);
    std::string decimal = ShortestDecimal(std::bit_cast<float>(bits));
    // It is read back as a double and then rounded once more, which in principle could differ.
    if (NarrowToF32Bits(ParseDecimal(decimal)) == bits) return decimal;
  }
  return ShortestDecimal(value);
}

std::string EncodeElement(GgufType type, uint64_t v) {
  if (type == GgufType::kBool) return v != 0 ? "true" : "false";
  return absl::StrCat(v);
}
std::string EncodeElement(GgufType, int64_t v) { return absl::StrCat(v); }
std::string EncodeElement(GgufType type, double v) { return EncodeFloat(type, v); }
std::string EncodeElement(GgufType, const std::string& v) {
  auto quoted = JsonQuote(v);
  if (quoted.ok()) return *std::move(quoted);
  return absl::StrCat(R"({"base64":")", absl::Base64Escape(v), R"("})");
}

// The smallest and largest value a stored integer of this type can have.
struct IntegerRange {
  int64_t least;
  uint64_t most;
};

IntegerRange RangeOf(GgufType type) {
  const int bits = static_cast<int>(GgufTypeBytes(type)) * 8;
  switch (type) {
    case GgufType::kI8:
    case GgufType::kI16:
    case GgufType::kI32:
    case GgufType::kI64:
      return {std::numeric_limits<int64_t>::min() >> (64 - bits), ~uint64_t{0} >> (65 - bits)};
    default:
      return {0, ~uint64_t{0} >> (64 - bits)};
  }
}

// Decodes values of one key; errors name it.
class ValueDecoder {
 public:
  ValueDecoder(GgufType type, std::string where) : type_(type), where_(std::move(where)) {}

  absl::StatusOr<uint64_t> Unsigned(const nlohmann::json& json) const {
    if (type_ == GgufType::kBool) {
      if (!json.is_boolean()) return Wrong(json);
      return uint64_t{json.get<bool>()};
    }
    if (!json.is_number_unsigned()) return Wrong(json);
    const uint64_t value = json.get<uint64_t>();
    if (value > RangeOf(type_).most) return Wrong(json);
    return value;
  }

  absl::StatusOr<int64_t> Signed(const nlohmann::json& json) const {
    if (!json.is_number_integer()) return Wrong(json);
    const IntegerRange range = RangeOf(type_);
    if (json.is_number_unsigned() && json.get<uint64_t>() > range.most) return Wrong(json);
    const int64_t value = json.get<int64_t>();
    if (value < range.least) return Wrong(json);
    return value;
  }

  absl::StatusOr<double> Float(const nlohmann::json& json) const {
    if (json.is_object()) return FloatBits(json);
    if (!json.is_number()) return Wrong(json);
    const double value = json.get<double>();
    return type_ == GgufType::kF32 ? WidenF32(NarrowToF32Bits(value)) : value;
  }

  absl::StatusOr<std::string> String(const nlohmann::json& json) const {
    if (json.is_string()) return json.get<std::string>();
    ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, where_));
    ODMOE_ASSIGN_OR_RETURN(const std::string base64, object.String("base64"));
    std::string text;
    if (!absl::Base64Unescape(base64, &text)) return object.Wrong("base64", "base64");
    return text;
  }

 private:
  absl::StatusOr<double> FloatBits(const nlohmann::json& json) const {
    ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, where_));
    ODMOE_ASSIGN_OR_RETURN(const std::string hex, object.String("bits"));
    uint64_t bits = 0;
    if (hex.size() != 2 * GgufTypeBytes(type_) || !absl::SimpleHexAtoi(hex, &bits)) {
      return object.Wrong("bits", "a float's bits in hex");
    }
    if (type_ == GgufType::kF64) return std::bit_cast<double>(bits);
    return WidenF32(static_cast<uint32_t>(bits));
  }

  absl::Status Wrong(const nlohmann::json& json) const {
    return absl::DataLossError(absl::StrCat(
        where_, ": a ", GgufTypeName(type_), " cannot be ",
        json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80)));
  }

  const GgufType type_;
  const std::string where_;
};

// Calls `decode(member)` with the ValueDecoder member that reads this type.
template <typename Decode>
absl::Status WithDecoderOf(GgufType type, const Decode& decode) {
  switch (type) {
    case GgufType::kString:
      return decode(&ValueDecoder::String);
    case GgufType::kF32:
    case GgufType::kF64:
      return decode(&ValueDecoder::Float);
    case GgufType::kI8:
    case GgufType::kI16:
    case GgufType::kI32:
    case GgufType::kI64:
      return decode(&ValueDecoder::Signed);
    default:
      return decode(&ValueDecoder::Unsigned);
  }
}

template <typename T>
absl::Status DecodeElements(const ValueDecoder& decoder, const nlohmann::json& json,
                            absl::StatusOr<T> (ValueDecoder::*one)(const nlohmann::json&) const,
                            GgufValue& value) {
  std::vector<T> elements;
  elements.reserve(json.size());
  for (const nlohmann::json& element : json) {
    ODMOE_ASSIGN_OR_RETURN(T decoded, (decoder.*one)(element));
    elements.push_back(std::move(decoded));
  }
  value.array = std::move(elements);
  return absl::OkStatus();
}

absl::StatusOr<GgufValue> DecodeEntry(const JsonObject& entry, const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const std::string type_name, entry.String("type"));
  const auto type = FindGgufType(type_name);
  if (!type.ok() || *type == GgufType::kArray) return entry.Wrong("type", "a GGUF value's type");
  GgufValue value;
  value.type = *type;
  value.is_array = entry.Has("values");
  const ValueDecoder decoder(value.type, where);
  const nlohmann::json* json = nullptr;
  if (value.is_array) {
    ODMOE_ASSIGN_OR_RETURN(json, entry.Array("values"));
  } else {
    ODMOE_ASSIGN_OR_RETURN(json, entry.Member("value"));
  }
  ODMOE_RETURN_IF_ERROR(WithDecoderOf(value.type, [&](auto one) -> absl::Status {
    if (value.is_array) return DecodeElements(decoder, *json, one, value);
    ODMOE_ASSIGN_OR_RETURN(auto scalar, (decoder.*one)(*json));
    value.scalar = std::move(scalar);
    return absl::OkStatus();
  }));
  return value;
}

}  // namespace

std::string EncodeGgufValue(const GgufValue& value) {
  if (!value.is_array) {
    return std::visit([&](const auto& v) { return EncodeElement(value.type, v); }, value.scalar);
  }
  std::string text = "[";
  std::visit(
      [&](const auto& elements) {
        for (const auto& v : elements) {
          if (text.size() > 1) text += ",";
          text += EncodeElement(value.type, v);
        }
      },
      value.array);
  return text + "]";
}

std::string EncodeGgufMetadata(const GgufMetadata& metadata) {
  std::string text = "[";
  absl::string_view separator = "\n ";
  for (const auto& [key, value] : metadata.entries()) {
    absl::StrAppend(&text, separator, R"({"key":)", EncodeElement(GgufType::kString, key),
                    R"(,"type":")", GgufTypeName(value.type),
                    value.is_array ? R"(","values":)" : R"(","value":)", EncodeGgufValue(value),
                    "}");
    separator = ",\n ";
  }
  return text + "\n]";
}

absl::StatusOr<GgufMetadata> DecodeGgufMetadata(const nlohmann::json& json,
                                                const std::string& where) {
  if (!json.is_array()) return absl::DataLossError(absl::StrCat(where, ": should be an array"));
  GgufMetadata metadata;
  absl::flat_hash_set<std::string> seen;
  const ValueDecoder key_decoder(GgufType::kString, where);
  for (const nlohmann::json& element : json) {
    ODMOE_ASSIGN_OR_RETURN(const JsonObject entry, JsonObject::From(element, where));
    ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* key_json, entry.Member("key"));
    ODMOE_ASSIGN_OR_RETURN(std::string key, key_decoder.String(*key_json));
    const std::string at = absl::StrCat(where, ": key '", absl::CHexEscape(key), "'");
    if (key.empty() || !seen.insert(key).second) {
      return absl::DataLossError(absl::StrCat(at, " is empty or there twice"));
    }
    ODMOE_ASSIGN_OR_RETURN(GgufValue value, DecodeEntry(entry, at));
    metadata.Append(std::move(key), std::move(value));
  }
  return metadata;
}

}  // namespace odmoe
