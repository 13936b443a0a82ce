#include "services/core/formats/gguf_writer.h"

#include <cstring>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

class HeaderText {
 public:
  template <typename T>
  void Number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void String(absl::string_view value) {
    Number<uint64_t>(value.size());
    text_.append(value.data(), value.size());
  }
  void Bytes(absl::string_view value) { text_.append(value.data(), value.size()); }
  void Pad(uint32_t alignment) { text_.resize(RoundUp(text_.size(), alignment), '\0'); }
  size_t size() const { return text_.size(); }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

void WriteNumber(HeaderText& out, GgufType type, uint64_t v) {
  switch (GgufTypeBytes(type)) {
    case 1:
      return out.Number(static_cast<uint8_t>(v));
    case 2:
      return out.Number(static_cast<uint16_t>(v));
    case 4:
      return out.Number(static_cast<uint32_t>(v));
    default:
      return out.Number(v);
  }
}

void WriteScalar(HeaderText& out, GgufType type, uint64_t v) { WriteNumber(out, type, v); }
void WriteScalar(HeaderText& out, GgufType type, int64_t v) {
  WriteNumber(out, type, static_cast<uint64_t>(v));
}
void WriteScalar(HeaderText& out, GgufType type, double v) {
  if (type == GgufType::kF64) {
    out.Number(v);
  } else {
    out.Number(NarrowToF32Bits(v));
  }
}
void WriteScalar(HeaderText& out, GgufType type, const std::string& v) { out.String(v); }

void WriteValue(HeaderText& out, const GgufValue& value) {
  if (!value.is_array) {
    out.Number(static_cast<int32_t>(value.type));
    std::visit([&](const auto& v) { WriteScalar(out, value.type, v); }, value.scalar);
    return;
  }
  out.Number(static_cast<int32_t>(GgufType::kArray));
  out.Number(static_cast<int32_t>(value.type));
  out.Number<uint64_t>(value.size());
  std::visit(
      [&](const auto& elements) {
        for (const auto& v : elements) WriteScalar(out, value.type, v);
      },
      value.array);
}

absl::StatusOr<uint32_t> AlignmentOf(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const uint32_t alignment,
                         metadata.GetU32Or(kGgufAlignmentKey, kDefaultGgufAlignment));
  if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > kMaxGgufAlignment) {
    return absl::InvalidArgumentError(absl::StrCat(kGgufAlignmentKey,
                                                   " should be a power of two up to ",
                                                   kMaxGgufAlignment, " and is ", alignment));
  }
  return alignment;
}

HeaderText WriteHeader(const GgufHeader& header) {
  HeaderText out;
  out.Bytes("GGUF");
  out.Number(header.version);
  out.Number<uint64_t>(header.tensors.size());
  out.Number<uint64_t>(header.metadata.entries().size());
  for (const auto& [key, value] : header.metadata.entries()) {
    out.String(key);
    WriteValue(out, value);
  }
  for (const GgufTensor& tensor : header.tensors) {
    out.String(tensor.name);
    out.Number(static_cast<uint32_t>(tensor.ne.size()));
    for (int64_t n : tensor.ne) out.Number(n);
    out.Number(GgmlTypeId(tensor.dtype));
    out.Number(tensor.offset);
  }
  return out;
}

}  // namespace

absl::Status LayOutGgufTensors(GgufHeader& header) {
  ODMOE_ASSIGN_OR_RETURN(const uint32_t alignment, AlignmentOf(header.metadata));
  absl::flat_hash_set<absl::string_view> seen;
  uint64_t offset = 0;
  for (GgufTensor& tensor : header.tensors) {
    if (tensor.name.empty() || tensor.name.size() > kMaxGgufNameBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor name '", tensor.name, "' has ", tensor.name.size(),
                       " bytes; GGUF allows 1 to ", kMaxGgufNameBytes));
    }
    if (!seen.insert(tensor.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor.name, "' is there twice"));
    }
    const auto bytes = GgufTensorBytes(tensor.dtype, tensor.ne);
    if (!bytes.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", tensor.name, "': ", bytes.status().message()));
    }
    tensor.bytes = *bytes;
    tensor.offset = offset;
    if (__builtin_add_overflow(offset, tensor.bytes, &offset) ||
        offset > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", tensor.name, "' would end past 2^63"));
    }
    offset = RoundUp(offset, alignment);
  }
  return absl::OkStatus();
}

uint64_t UnpaddedGgufHeaderBytes(const GgufHeader& header) { return WriteHeader(header).size(); }

absl::StatusOr<std::string> EncodeGgufHeader(const GgufHeader& header) {
  ODMOE_ASSIGN_OR_RETURN(const uint32_t alignment, AlignmentOf(header.metadata));
  HeaderText out = WriteHeader(header);
  if (out.size() > kMaxGgufHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the GGUF header would take ", out.size(),
                                                   " bytes; ", kMaxGgufHeaderBytes,
                                                   " are allowed"));
  }
  out.Pad(alignment);
  return out.Take();
}

absl::StatusOr<std::unique_ptr<GgufWriter>> GgufWriter::Create(WritableFile& file,
                                                               GgufHeader header) {
  std::unique_ptr<GgufWriter> writer(new GgufWriter(file, std::move(header)));
  ODMOE_RETURN_IF_ERROR(LayOutGgufTensors(writer->header_));
  ODMOE_ASSIGN_OR_RETURN(writer->alignment_, AlignmentOf(writer->header_.metadata));
  ODMOE_ASSIGN_OR_RETURN(const std::string text, EncodeGgufHeader(writer->header_));
  writer->file_bytes_ = text.size();
  if (!writer->tensors().empty()) {
    const GgufTensor& last = writer->tensors().back();
    writer->file_bytes_ += RoundUp(last.offset + last.bytes, writer->alignment_);
  }
  ODMOE_RETURN_IF_ERROR(file.Append(text));
  return writer;
}

absl::Status GgufWriter::Append(absl::Span<const std::byte> data) {
  if (data.empty()) return absl::OkStatus();
  if (current_ == tensors().size()) {
    return absl::FailedPreconditionError(
        absl::StrCat(file_.path(), ": ", data.size(), " bytes past the last tensor"));
  }
  const GgufTensor& tensor = tensors()[current_];
  if (data.size() > tensor.bytes - written_) {
    return absl::FailedPreconditionError(
        absl::StrCat(file_.path(), ": tensor '", tensor.name, "' has ", tensor.bytes,
                     " bytes, got ", written_ + data.size()));
  }
  ODMOE_RETURN_IF_ERROR(file_.Append(data));
  written_ += data.size();
  if (written_ == tensor.bytes) {
    ODMOE_RETURN_IF_ERROR(Pad());
    ++current_;
    written_ = 0;
  }
  return absl::OkStatus();
}

absl::Status GgufWriter::Pad() {
  const uint64_t padding = RoundUp(written_, alignment_) - written_;
  return file_.Append(absl::string_view(std::string(padding, '\0')));
}

absl::Status GgufWriter::Finish() {
  if (current_ == tensors().size()) return absl::OkStatus();
  const GgufTensor& tensor = tensors()[current_];
  return absl::FailedPreconditionError(absl::StrCat(file_.path(), ": tensor '", tensor.name,
                                                    "' has ", tensor.bytes, " bytes, got ",
                                                    written_));
}

}  // namespace odmoe
