#include "services/core/formats/gguf.h"

#include <bit>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

struct TypeInfo {
  GgufType type;
  absl::string_view name;
  size_t bytes;
};

constexpr TypeInfo kTypes[] = {
    {GgufType::kU8, "u8", 1},          {GgufType::kI8, "i8", 1},   {GgufType::kU16, "u16", 2},
    {GgufType::kI16, "i16", 2},        {GgufType::kU32, "u32", 4}, {GgufType::kI32, "i32", 4},
    {GgufType::kF32, "f32", 4},        {GgufType::kBool, "bool", 1},
    {GgufType::kString, "string", 0},  {GgufType::kArray, "array", 0},
    {GgufType::kU64, "u64", 8},        {GgufType::kI64, "i64", 8}, {GgufType::kF64, "f64", 8},
};

const TypeInfo& FindType(GgufType type) {
  for (const TypeInfo& info : kTypes) {
    if (info.type == type) return info;
  }
  return kTypes[0];  // every enumerator has its row above
}

GgufValue Lone(GgufType type, GgufValue::Scalar scalar) {
  GgufValue value;
  value.type = type;
  value.scalar = std::move(scalar);
  return value;
}

template <typename T>
GgufValue Many(GgufType type, std::vector<T> elements) {
  GgufValue value;
  value.type = type;
  value.is_array = true;
  value.array = std::move(elements);
  return value;
}

std::string Describe(const GgufValue& value) {
  return absl::StrCat(value.is_array ? "an array of " : "", GgufTypeName(value.type));
}

absl::Status WrongType(absl::string_view key, absl::string_view expected, const GgufValue& value) {
  return absl::InvalidArgumentError(
      absl::StrCat("GGUF key '", key, "' should be ", expected, " and is ", Describe(value)));
}

absl::StatusOr<const GgufValue*> Require(const GgufMetadata& metadata, absl::string_view key) {
  const GgufValue* value = metadata.Find(key);
  if (value == nullptr) return absl::NotFoundError(absl::StrCat("no GGUF key '", key, "'"));
  return value;
}

template <typename T>
absl::StatusOr<T> OrElse(absl::StatusOr<T> value, T fallback) {
  if (absl::IsNotFound(value.status())) return fallback;
  return value;
}

constexpr uint32_t kF32Exponent = 0x7f800000u;
constexpr uint64_t kF64Exponent = 0x7ff0000000000000u;

}  // namespace

GgufValue GgufValue::U32(uint32_t v) { return Lone(GgufType::kU32, uint64_t{v}); }
GgufValue GgufValue::I32(int32_t v) { return Lone(GgufType::kI32, int64_t{v}); }
GgufValue GgufValue::U64(uint64_t v) { return Lone(GgufType::kU64, v); }
GgufValue GgufValue::F32(float v) {
  return Lone(GgufType::kF32, WidenF32(std::bit_cast<uint32_t>(v)));
}
GgufValue GgufValue::Bool(bool v) { return Lone(GgufType::kBool, uint64_t{v}); }
GgufValue GgufValue::String(std::string v) { return Lone(GgufType::kString, std::move(v)); }
GgufValue GgufValue::Strings(std::vector<std::string> v) {
  return Many(GgufType::kString, std::move(v));
}
GgufValue GgufValue::I32s(std::vector<int64_t> v) { return Many(GgufType::kI32, std::move(v)); }
GgufValue GgufValue::F32s(std::vector<double> v) { return Many(GgufType::kF32, std::move(v)); }

size_t GgufValue::size() const {
  if (!is_array) return 1;
  return std::visit([](const auto& elements) { return elements.size(); }, array);
}

const GgufValue* GgufMetadata::Find(absl::string_view key) const {
  for (const auto& [name, value] : entries_) {
    if (name == key) return &value;
  }
  return nullptr;
}

void GgufMetadata::Set(std::string key, GgufValue value) {
  for (auto& [name, old] : entries_) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  entries_.emplace_back(std::move(key), std::move(value));
}

absl::StatusOr<uint32_t> GgufMetadata::GetU32(absl::string_view key) const {
  ODMOE_ASSIGN_OR_RETURN(const GgufValue* value, Require(*this, key));
  constexpr uint64_t kMax = std::numeric_limits<uint32_t>::max();
  if (!value->is_array && value->type != GgufType::kBool) {
    if (const auto* u = std::get_if<uint64_t>(&value->scalar)) {
      if (*u <= kMax) return static_cast<uint32_t>(*u);
      return absl::InvalidArgumentError(
          absl::StrCat("GGUF key '", key, "' should be below 2^32 and is ", *u));
    }
    if (const auto* i = std::get_if<int64_t>(&value->scalar)) {
      if (*i >= 0 && static_cast<uint64_t>(*i) <= kMax) return static_cast<uint32_t>(*i);
      return absl::InvalidArgumentError(
          absl::StrCat("GGUF key '", key, "' should be in [0, 2^32) and is ", *i));
    }
  }
  return WrongType(key, "an integer", *value);
}

absl::StatusOr<float> GgufMetadata::GetF32(absl::string_view key) const {
  ODMOE_ASSIGN_OR_RETURN(const GgufValue* value, Require(*this, key));
  const auto* number = std::get_if<double>(&value->scalar);
  if (value->is_array || number == nullptr) return WrongType(key, "a float", *value);
  return std::bit_cast<float>(NarrowToF32Bits(*number));
}

absl::StatusOr<bool> GgufMetadata::GetBool(absl::string_view key) const {
  ODMOE_ASSIGN_OR_RETURN(const GgufValue* value, Require(*this, key));
  if (value->is_array || value->type != GgufType::kBool) return WrongType(key, "a bool", *value);
  return std::get<uint64_t>(value->scalar) != 0;
}

absl::StatusOr<std::string> GgufMetadata::GetString(absl::string_view key) const {
  ODMOE_ASSIGN_OR_RETURN(const GgufValue* value, Require(*this, key));
  const auto* text = std::get_if<std::string>(&value->scalar);
  if (value->is_array || text == nullptr) return WrongType(key, "a string", *value);
  return *text;
}

absl::StatusOr<const std::vector<std::string>*> GgufMetadata::GetStrings(
    absl::string_view key) const {
  ODMOE_ASSIGN_OR_RETURN(const GgufValue* value, Require(*this, key));
  const auto* texts = std::get_if<std::vector<std::string>>(&value->array);
  if (!value->is_array || texts == nullptr) return WrongType(key, "an array of strings", *value);
  return texts;
}

absl::StatusOr<std::vector<int64_t>> GgufMetadata::GetInts(absl::string_view key) const {
  ODMOE_ASSIGN_OR_RETURN(const GgufValue* value, Require(*this, key));
  if (value->is_array && value->type != GgufType::kBool) {
    if (const auto* ints = std::get_if<std::vector<int64_t>>(&value->array)) return *ints;
    if (const auto* unsigneds = std::get_if<std::vector<uint64_t>>(&value->array)) {
      std::vector<int64_t> ints;
      ints.reserve(unsigneds->size());
      for (uint64_t u : *unsigneds) {
        if (u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
          return absl::InvalidArgumentError(
              absl::StrCat("GGUF key '", key, "' should hold numbers below 2^63 and has ", u));
        }
        ints.push_back(static_cast<int64_t>(u));
      }
      return ints;
    }
  }
  return WrongType(key, "an array of integers", *value);
}

absl::StatusOr<std::vector<float>> GgufMetadata::GetFloats(absl::string_view key) const {
  ODMOE_ASSIGN_OR_RETURN(const GgufValue* value, Require(*this, key));
  const auto* doubles = std::get_if<std::vector<double>>(&value->array);
  if (!value->is_array || doubles == nullptr) return WrongType(key, "an array of floats", *value);
  std::vector<float> floats;
  floats.reserve(doubles->size());
  for (double d : *doubles) floats.push_back(std::bit_cast<float>(NarrowToF32Bits(d)));
  return floats;
}

absl::StatusOr<uint32_t> GgufMetadata::GetU32Or(absl::string_view key, uint32_t fallback) const {
  return OrElse(GetU32(key), fallback);
}
absl::StatusOr<float> GgufMetadata::GetF32Or(absl::string_view key, float fallback) const {
  return OrElse(GetF32(key), fallback);
}
absl::StatusOr<bool> GgufMetadata::GetBoolOr(absl::string_view key, bool fallback) const {
  return OrElse(GetBool(key), fallback);
}
absl::StatusOr<std::string> GgufMetadata::GetStringOr(absl::string_view key,
                                                      std::string fallback) const {
  return OrElse(GetString(key), std::move(fallback));
}

int64_t GgufTensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 1; i < ne.size(); ++i) rows *= ne[i];
  return ne.empty() ? 0 : rows;
}

absl::StatusOr<uint64_t> GgufTensorBytes(DType dtype, const std::vector<int64_t>& ne) {
  if (ne.empty() || ne.size() > 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("a tensor has 1 to 4 dimensions, got ", ne.size()));
  }
  for (size_t i = 0; i < ne.size(); ++i) {
    if (ne[i] < 1) {
      return absl::InvalidArgumentError(absl::StrCat("dimension ", i, " is ", ne[i]));
    }
  }
  int64_t elements = ne[0], rows = 1;
  for (size_t i = 1; i < ne.size(); ++i) {
    if (__builtin_mul_overflow(rows, ne[i], &rows) ||
        __builtin_mul_overflow(elements, ne[i], &elements)) {
      return absl::InvalidArgumentError("the product of its dimensions is too large");
    }
  }
  // One scale a tensor would be one for a whole stack of experts.
  if (IsBitnetDType(dtype) && ne.size() > 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(Info(dtype).name, " is for matrices, got ", ne.size(), " dimensions"));
  }
  return TensorBytes(dtype, ne[0], rows);
}

double WidenF32(uint32_t bits) {
  const float value = std::bit_cast<float>(bits);
  if (!std::isnan(value)) return value;
  const uint64_t sign = static_cast<uint64_t>(bits >> 31) << 63;
  return std::bit_cast<double>(sign | kF64Exponent | static_cast<uint64_t>(bits & 0x7fffffu) << 29);
}

uint32_t NarrowToF32Bits(double value) {
  if (!std::isnan(value)) {
    // A double beyond float's range becomes infinity; the plain conversion would be undefined.
    if (std::fabs(value) > std::numeric_limits<float>::max()) {
      return kF32Exponent | (std::signbit(value) ? 0x80000000u : 0u);
    }
    return std::bit_cast<uint32_t>(static_cast<float>(value));
  }
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  uint32_t mantissa = static_cast<uint32_t>(bits >> 29) & 0x7fffffu;
  if (mantissa == 0) mantissa = 0x400000u;  // a payload that only a double can hold
  return static_cast<uint32_t>(bits >> 63) << 31 | kF32Exponent | mantissa;
}

absl::string_view GgufTypeName(GgufType type) { return FindType(type).name; }

absl::StatusOr<GgufType> FindGgufType(absl::string_view name) {
  for (const TypeInfo& info : kTypes) {
    if (info.name == name) return info.type;
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown GGUF type '", name, "'"));
}

size_t GgufTypeBytes(GgufType type) { return FindType(type).bytes; }

}  // namespace odmoe
