#include "services/core/formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <tuple>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/file_kind.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr char kMetadataKey[] = "__metadata__";

struct DTypeBits {
  absl::string_view name;
  uint32_t bits;
};

constexpr DTypeBits kDTypes[] = {
    {"BOOL", 8},     {"F4", 4},       {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},
    {"I8", 8},       {"F8_E5M2", 8},  {"F8_E4M3", 8}, {"F8_E5M2FNUZ", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E8M0", 8},  {"I16", 16},     {"U16", 16},    {"F16", 16},        {"BF16", 16},
    {"I32", 32},     {"U32", 32},     {"F32", 32},    {"C64", 64},        {"F64", 64},
    {"I64", 64},     {"U64", 64},
};

// Bytes of a tensor of this dtype and shape; a tensor of no elements or of no dimensions is
// allowed.
absl::StatusOr<uint64_t> TensorBytes(absl::string_view dtype, const std::vector<int64_t>& shape) {
  ODMOE_ASSIGN_OR_RETURN(uint64_t bits, SafetensorsDTypeBits(dtype));
  for (int64_t n : shape) {
    if (n < 0 || __builtin_mul_overflow(bits, static_cast<uint64_t>(n), &bits)) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape [", absl::StrJoin(shape, ", "), "] is negative or too large"));
    }
  }
  if (bits % 8 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("shape [", absl::StrJoin(shape, ", "), "] of ",
                                                   dtype, " is not a whole number of bytes"));
  }
  return bits / 8;
}

absl::StatusOr<SafetensorsTensor> ParseTensor(const std::string& name, const nlohmann::json& json,
                                              const std::string& path, uint64_t data_bytes) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object,
                         JsonObject::From(json, absl::StrCat(path, ": tensor '", name, "'")));
  SafetensorsTensor tensor;
  tensor.name = name;
  ODMOE_ASSIGN_OR_RETURN(tensor.dtype, object.String("dtype"));
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* shape, object.Array("shape"));
  for (const nlohmann::json& n : *shape) {
    if (!n.is_number_unsigned() ||
        n.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return object.Wrong("shape", "an array of non-negative integers");
    }
    tensor.shape.push_back(n.get<int64_t>());
  }
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* offsets, object.Array("data_offsets"));
  if (offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
      !(*offsets)[1].is_number_unsigned()) {
    return object.Wrong("data_offsets", "[begin, end]");
  }
  const uint64_t begin = (*offsets)[0].get<uint64_t>(), end = (*offsets)[1].get<uint64_t>();
  if (begin > end || end > data_bytes) {
    return absl::DataLossError(absl::StrCat(object.where(), ": data_offsets [", begin, ", ", end,
                                            "] do not lie in the ", data_bytes,
                                            " bytes of data"));
  }
  tensor.offset = begin;
  tensor.bytes = end - begin;
  const auto expected = TensorBytes(tensor.dtype, tensor.shape);
  if (!expected.ok()) {
    return absl::DataLossError(absl::StrCat(object.where(), ": ", expected.status().message()));
  }
  if (*expected != tensor.bytes) {
    return absl::DataLossError(absl::StrCat(object.where(), ": ", tensor.dtype, " [",
                                            absl::StrJoin(tensor.shape, ", "), "] takes ",
                                            *expected, " bytes, data_offsets give ", tensor.bytes));
  }
  return tensor;
}

absl::StatusOr<std::map<std::string, std::string>> ParseMetadata(const nlohmann::json& json,
                                                                 const std::string& path) {
  std::map<std::string, std::string> metadata;
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object,
                         JsonObject::From(json, absl::StrCat(path, ": ", kMetadataKey)));
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) return object.Wrong(key.c_str(), "a string");
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

// The tensors, in the order of their data, must tile it. Offsets become the file's.
absl::Status CheckTiling(std::vector<SafetensorsTensor>& tensors, const std::string& path,
                         uint64_t data_offset, uint64_t data_bytes) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  uint64_t expected = 0;
  for (SafetensorsTensor& tensor : tensors) {
    if (tensor.offset != expected) {
      return absl::DataLossError(absl::StrCat(path, ": tensor '", tensor.name,
                                              "' should begin at ", expected,
                                              " of the data and begins at ", tensor.offset));
    }
    expected += tensor.bytes;
    tensor.offset += data_offset;
  }
  if (expected != data_bytes) {
    return absl::DataLossError(absl::StrCat(path, ": the tensors end at ", expected,
                                            " of the data, which has ", data_bytes, " bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadHeader(const RandomAccessFile& file) {
  const std::string& path = file.path();
  uint64_t length = 0;
  if (file.size() < kLengthBytes + 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a safetensors file: it has ", file.size(), " bytes",
                     LooksLike(file)));
  }
  ODMOE_RETURN_IF_ERROR(
      file.ReadAt(0, absl::MakeSpan(reinterpret_cast<std::byte*>(&length), sizeof(length))));
  char first = 0;
  ODMOE_RETURN_IF_ERROR(
      file.ReadAt(kLengthBytes, absl::MakeSpan(reinterpret_cast<std::byte*>(&first), 1)));
  if (first != '{' || length > kMaxSafetensorsHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": not a safetensors file: at offset 0: a header length of ", length, ", at most ",
        kMaxSafetensorsHeaderBytes, " allowed; at offset 8: byte ", int{uint8_t(first)},
        ", expected '{'", LooksLike(file)));
  }
  if (length > file.size() - kLengthBytes) {
    return absl::DataLossError(absl::StrCat(path, ": at offset 0: a header of ", length,
                                            " bytes; the file has ", file.size()));
  }
  std::string header(length, '\0');
  ODMOE_RETURN_IF_ERROR(file.ReadAt(
      kLengthBytes, absl::MakeSpan(reinterpret_cast<std::byte*>(header.data()), header.size())));
  return header;
}

}  // namespace

absl::StatusOr<uint32_t> SafetensorsDTypeBits(absl::string_view dtype) {
  for (const DTypeBits& known : kDTypes) {
    if (known.name == dtype) return known.bits;
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown safetensors dtype '", dtype, "'"));
}

absl::StatusOr<std::unique_ptr<SafetensorsReader>> SafetensorsReader::Open(
    std::unique_ptr<RandomAccessFile> file) {
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader);
  reader->file_ = std::move(file);
  const std::string& path = reader->file_->path();
  ODMOE_ASSIGN_OR_RETURN(const std::string header, ReadHeader(*reader->file_));
  reader->data_offset_ = kLengthBytes + header.size();
  const uint64_t data_bytes = reader->file_->size() - reader->data_offset_;
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(header, path));
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadataKey) {
      ODMOE_ASSIGN_OR_RETURN(reader->metadata_, ParseMetadata(value, path));
      continue;
    }
    ODMOE_ASSIGN_OR_RETURN(SafetensorsTensor tensor, ParseTensor(name, value, path, data_bytes));
    reader->tensors_.push_back(std::move(tensor));
  }
  ODMOE_RETURN_IF_ERROR(CheckTiling(reader->tensors_, path, reader->data_offset_, data_bytes));
  for (size_t i = 0; i < reader->tensors_.size(); ++i) {
    reader->by_name_.emplace(reader->tensors_[i].name, i);
  }
  return reader;
}

const SafetensorsTensor* SafetensorsReader::Find(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

absl::Status SafetensorsReader::ReadTensor(const SafetensorsTensor& tensor, uint64_t offset,
                                           absl::Span<std::byte> out) const {
  if (offset > tensor.bytes || out.size() > tensor.bytes - offset) {
    return absl::OutOfRangeError(absl::StrCat(file_->path(), ": tensor '", tensor.name, "' has ",
                                              tensor.bytes, " bytes, cannot read ", out.size(),
                                              " at ", offset));
  }
  return file_->ReadAt(tensor.offset + offset, out);
}

absl::StatusOr<std::string> EncodeSafetensorsHeader(
    std::vector<SafetensorsTensor>& tensors, const std::map<std::string, std::string>& metadata,
    uint64_t alignment) {
  std::vector<std::string> entries;
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : metadata) {
      ODMOE_ASSIGN_OR_RETURN(const std::string quoted_key, JsonQuote(key));
      ODMOE_ASSIGN_OR_RETURN(const std::string quoted_value, JsonQuote(value));
      pairs.push_back(absl::StrCat(quoted_key, ":", quoted_value));
    }
    entries.push_back(absl::StrCat("\"", kMetadataKey, "\":{", absl::StrJoin(pairs, ","), "}"));
  }
  uint64_t offset = 0;
  for (SafetensorsTensor& tensor : tensors) {
    ODMOE_ASSIGN_OR_RETURN(const uint64_t expected, TensorBytes(tensor.dtype, tensor.shape));
    if (expected != tensor.bytes) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor.name, "': ", tensor.dtype,
                                                     " [", absl::StrJoin(tensor.shape, ", "),
                                                     "] takes ", expected, " bytes, got ",
                                                     tensor.bytes));
    }
    tensor.offset = offset;
    offset += tensor.bytes;
    ODMOE_ASSIGN_OR_RETURN(const std::string name, JsonQuote(tensor.name));
    entries.push_back(absl::StrCat(name, ":{\"dtype\":\"", tensor.dtype, "\",\"shape\":[",
                                   absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[",
                                   tensor.offset, ",", offset, "]}"));
  }
  std::string text = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  const uint64_t data_offset = RoundUp(kLengthBytes + text.size(), alignment);
  if (data_offset - kLengthBytes > kMaxSafetensorsHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a safetensors header of ", text.size(),
                                                   " bytes; the format allows ",
                                                   kMaxSafetensorsHeaderBytes));
  }
  text.resize(data_offset - kLengthBytes, ' ');
  for (SafetensorsTensor& tensor : tensors) tensor.offset += data_offset;
  const uint64_t length = text.size();
  return absl::StrCat(
      absl::string_view(reinterpret_cast<const char*>(&length), sizeof(length)), text);
}

}  // namespace odmoe
