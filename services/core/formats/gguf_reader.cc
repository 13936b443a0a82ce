#include "services/core/formats/gguf_reader.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/file_kind.h"

namespace odmoe {
namespace {

constexpr char kMagic[4] = {'G', 'G', 'U', 'F'};
constexpr uint32_t kMinVersion = 2;  // version 1 had 32-bit lengths
constexpr uint32_t kMaxVersion = 3;
// The least a key and a tensor info can take in the file; bounds what their counts may claim.
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

// Reads a header front to back, a block at a time; no read passes the file's end or the header
// limit, and no allocation is larger than what the file still holds.
class HeaderCursor {
 public:
  explicit HeaderCursor(const RandomAccessFile& file)
      : file_(file), end_(std::min(file.size(), kMaxGgufHeaderBytes)) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return end_ - offset_; }

  absl::Status Corrupt(uint64_t offset, absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(file_.path(), ": at offset ", offset, ": ", what));
  }

  // Fails unless `bytes` more can be read; `what` names what they should hold.
  absl::Status Require(uint64_t bytes, absl::string_view what) const {
    if (bytes <= remaining()) return absl::OkStatus();
    if (end_ < file_.size()) {
      return Corrupt(offset_, absl::StrCat(what, " takes ", bytes, " bytes; the header would pass ",
                                           kMaxGgufHeaderBytes, " bytes, the most we read"));
    }
    return Corrupt(offset_, absl::StrCat(what, " takes ", bytes, " bytes; the file ends after ",
                                         remaining()));
  }

  absl::Status Read(absl::Span<std::byte> out, absl::string_view what) {
    ODMOE_RETURN_IF_ERROR(Require(out.size(), what));
    while (!out.empty()) {
      if (offset_ < block_start_ || offset_ >= block_start_ + block_.size()) {
        ODMOE_RETURN_IF_ERROR(LoadBlock());
      }
      const size_t at = static_cast<size_t>(offset_ - block_start_);
      const size_t count = std::min(out.size(), block_.size() - at);
      std::memcpy(out.data(), block_.data() + at, count);
      out.remove_prefix(count);
      offset_ += count;
    }
    return absl::OkStatus();
  }

  template <typename T>
  absl::StatusOr<T> Number(absl::string_view what) {
    T value;
    ODMOE_RETURN_IF_ERROR(
        Read(absl::MakeSpan(reinterpret_cast<std::byte*>(&value), sizeof(T)), what));
    return value;
  }

  absl::StatusOr<std::string> String(absl::string_view what) {
    const uint64_t at = offset_;
    ODMOE_ASSIGN_OR_RETURN(const uint64_t length, Number<uint64_t>(what));
    if (length > remaining()) {
      return Corrupt(at, absl::StrCat(what, " claims ", length, " bytes; ", remaining(),
                                      " are left"));
    }
    std::string text(length, '\0');
    ODMOE_RETURN_IF_ERROR(
        Read(absl::MakeSpan(reinterpret_cast<std::byte*>(text.data()), text.size()), what));
    return text;
  }

 private:
  static constexpr uint64_t kBlockBytes = 256 * kKiB;

  absl::Status LoadBlock() {
    block_.resize(static_cast<size_t>(std::min(kBlockBytes, end_ - offset_)));
    block_start_ = offset_;
    return file_.ReadAt(offset_, absl::MakeSpan(block_));
  }

  const RandomAccessFile& file_;
  const uint64_t end_;
  uint64_t offset_ = 0;
  uint64_t block_start_ = 0;
  std::vector<std::byte> block_;
};

std::string Quote(absl::string_view text) {
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, 80)), "'");
}

// One value of a type that is not an array, as the variant GgufValue holds it in.
absl::StatusOr<GgufValue::Scalar> ReadScalar(HeaderCursor& in, GgufType type,
                                             absl::string_view what) {
  using Scalar = GgufValue::Scalar;
  switch (type) {
    case GgufType::kU8: {
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<uint8_t>(what));
      return Scalar(uint64_t{v});
    }
    case GgufType::kI8: {
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<int8_t>(what));
      return Scalar(int64_t{v});
    }
    case GgufType::kU16: {
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<uint16_t>(what));
      return Scalar(uint64_t{v});
    }
    case GgufType::kI16: {
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<int16_t>(what));
      return Scalar(int64_t{v});
    }
    case GgufType::kU32: {
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<uint32_t>(what));
      return Scalar(uint64_t{v});
    }
    case GgufType::kI32: {
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<int32_t>(what));
      return Scalar(int64_t{v});
    }
    case GgufType::kF32: {
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<uint32_t>(what));
      return Scalar(WidenF32(v));
    }
    case GgufType::kBool: {
      const uint64_t at = in.offset();
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<uint8_t>(what));
      if (v > 1) return in.Corrupt(at, absl::StrCat(what, " is a bool and has value ", int{v}));
      return Scalar(uint64_t{v});
    }
    case GgufType::kString: {
      ODMOE_ASSIGN_OR_RETURN(std::string v, in.String(what));
      return Scalar(std::move(v));
    }
    case GgufType::kU64: {
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<uint64_t>(what));
      return Scalar(v);
    }
    case GgufType::kI64: {
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<int64_t>(what));
      return Scalar(v);
    }
    case GgufType::kF64: {
      ODMOE_ASSIGN_OR_RETURN(const auto v, in.Number<double>(what));
      return Scalar(v);
    }
    case GgufType::kArray:
      break;
  }
  return absl::InternalError("an array is not a scalar");
}

absl::StatusOr<GgufType> ReadType(HeaderCursor& in, absl::string_view what) {
  const uint64_t at = in.offset();
  ODMOE_ASSIGN_OR_RETURN(const int32_t id, in.Number<int32_t>(what));
  if (id < 0 || id > static_cast<int32_t>(GgufType::kF64)) {
    return in.Corrupt(at, absl::StrCat(what, " has unknown type ", id));
  }
  return static_cast<GgufType>(id);
}

template <typename T>
absl::Status ReadElements(HeaderCursor& in, uint64_t count, absl::string_view what,
                          GgufValue& value) {
  std::vector<T> elements;
  elements.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    ODMOE_ASSIGN_OR_RETURN(GgufValue::Scalar scalar, ReadScalar(in, value.type, what));
    elements.push_back(std::get<T>(std::move(scalar)));
  }
  value.array = std::move(elements);
  return absl::OkStatus();
}

absl::Status ReadArray(HeaderCursor& in, absl::string_view what, uint64_t& elements,
                       GgufValue& value) {
  const uint64_t at = in.offset();
  ODMOE_ASSIGN_OR_RETURN(value.type, ReadType(in, what));
  value.is_array = true;
  if (value.type == GgufType::kArray) return in.Corrupt(at, absl::StrCat(what, " nests arrays"));
  ODMOE_ASSIGN_OR_RETURN(const uint64_t count, in.Number<uint64_t>(what));
  // A string takes at least its length.
  const uint64_t element_bytes = std::max<uint64_t>(GgufTypeBytes(value.type), 1);
  const uint64_t least_bytes = value.type == GgufType::kString ? 8 : element_bytes;
  if (count > in.remaining() / least_bytes) {
    return in.Corrupt(at, absl::StrCat(what, " claims ", count, " elements of at least ",
                                       least_bytes, " bytes; ", in.remaining(), " bytes are left"));
  }
  if (count > kMaxGgufElements - elements) {
    return in.Corrupt(at, absl::StrCat(what, " brings the arrays' elements to ", elements + count,
                                       ", at most ", kMaxGgufElements, " are read"));
  }
  elements += count;
  switch (value.type) {
    case GgufType::kString:
      return ReadElements<std::string>(in, count, what, value);
    case GgufType::kF32:
    case GgufType::kF64:
      return ReadElements<double>(in, count, what, value);
    case GgufType::kI8:
    case GgufType::kI16:
    case GgufType::kI32:
    case GgufType::kI64:
      return ReadElements<int64_t>(in, count, what, value);
    default:
      return ReadElements<uint64_t>(in, count, what, value);
  }
}

absl::StatusOr<GgufMetadata> ReadKeys(HeaderCursor& in, uint64_t count) {
  GgufMetadata metadata;
  absl::flat_hash_set<std::string> seen;
  uint64_t elements = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = in.offset();
    ODMOE_ASSIGN_OR_RETURN(std::string key, in.String(absl::StrCat("the name of key ", i)));
    if (key.empty()) return in.Corrupt(at, absl::StrCat("key ", i, " has no name"));
    if (!seen.insert(key).second) {
      return in.Corrupt(at, absl::StrCat("key ", Quote(key), " is there twice"));
    }
    const std::string what = absl::StrCat("key ", Quote(key));
    GgufValue value;
    ODMOE_ASSIGN_OR_RETURN(value.type, ReadType(in, what));
    if (value.type == GgufType::kArray) {
      ODMOE_RETURN_IF_ERROR(ReadArray(in, what, elements, value));
    } else {
      ODMOE_ASSIGN_OR_RETURN(value.scalar, ReadScalar(in, value.type, what));
    }
    metadata.Append(std::move(key), std::move(value));
  }
  return metadata;
}

absl::StatusOr<uint32_t> FindAlignment(HeaderCursor& in, const GgufMetadata& metadata) {
  const GgufValue* value = metadata.Find(kGgufAlignmentKey);
  if (value == nullptr) return kDefaultGgufAlignment;
  if (value->is_array || value->type != GgufType::kU32) {
    return in.Corrupt(in.offset(), absl::StrCat("key '", kGgufAlignmentKey, "' should be u32"));
  }
  const uint64_t alignment = std::get<uint64_t>(value->scalar);
  if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > kMaxGgufAlignment) {
    return in.Corrupt(in.offset(), absl::StrCat("key '", kGgufAlignmentKey,
                                                "' should be a power of two up to ",
                                                kMaxGgufAlignment, " and is ", alignment));
  }
  return static_cast<uint32_t>(alignment);
}

// BitNet's own ggml gave ids another meaning; models of its architectures carry those.
bool HasBitnetTypes(const GgufMetadata& metadata) {
  const auto architecture = metadata.GetString("general.architecture");
  return architecture.ok() && absl::StartsWith(*architecture, "bitnet");
}

absl::StatusOr<GgufTensor> ReadTensorInfo(HeaderCursor& in, uint64_t index, bool bitnet) {
  const uint64_t at = in.offset();
  GgufTensor tensor;
  ODMOE_ASSIGN_OR_RETURN(tensor.name, in.String(absl::StrCat("the name of tensor ", index)));
  if (tensor.name.empty() || tensor.name.size() > kMaxGgufNameBytes) {
    return in.Corrupt(at, absl::StrCat("the name of tensor ", index, " has ", tensor.name.size(),
                                       " bytes; 1 to ", kMaxGgufNameBytes, " are allowed"));
  }
  const std::string what = absl::StrCat("tensor ", Quote(tensor.name));
  const uint64_t dimensions_at = in.offset();
  ODMOE_ASSIGN_OR_RETURN(const uint32_t dimensions, in.Number<uint32_t>(what));
  if (dimensions < 1 || dimensions > 4) {
    return in.Corrupt(dimensions_at,
                      absl::StrCat(what, " has ", dimensions, " dimensions; 1 to 4 are allowed"));
  }
  for (uint32_t i = 0; i < dimensions; ++i) {
    ODMOE_ASSIGN_OR_RETURN(const int64_t n, in.Number<int64_t>(what));
    tensor.ne.push_back(n);
  }
  const uint64_t type_at = in.offset();
  ODMOE_ASSIGN_OR_RETURN(const uint32_t type, in.Number<uint32_t>(what));
  const auto info = bitnet ? FindBitnetDType(type) : FindDType(type);
  if (!info.ok()) {
    return absl::InvalidArgumentError(
        in.Corrupt(type_at, absl::StrCat(what, ": ", info.status().message())).message());
  }
  tensor.dtype = info->dtype;
  ODMOE_ASSIGN_OR_RETURN(tensor.offset, in.Number<uint64_t>(what));
  const auto bytes = GgufTensorBytes(tensor.dtype, tensor.ne);
  if (!bytes.ok()) {
    return in.Corrupt(dimensions_at, absl::StrCat(what, ": ", bytes.status().message()));
  }
  tensor.bytes = *bytes;
  return tensor;
}

// In BitNet's models one id is both mxfp4 and tl2. A tl2 tensor is never the last, its scale
// follows, and where that starts tells how long the tensor is. Gives the next tensor's place.
uint64_t TellTL2(uint64_t next_offset, uint64_t expected, uint32_t alignment, GgufTensor& tensor) {
  const auto bytes = GgufTensorBytes(DType::kTL2, tensor.ne);
  if (tensor.dtype != DType::kMXFP4 || next_offset == expected || !bytes.ok()) return expected;
  const uint64_t end = RoundUp(tensor.offset + *bytes, alignment);
  if (next_offset != end) return expected;
  tensor.dtype = DType::kTL2;
  tensor.bytes = *bytes;
  return end;
}

// Tensors lie in the order of their infos, each at the next multiple of the alignment.
absl::StatusOr<std::vector<GgufTensor>> ReadTensorInfos(HeaderCursor& in, uint64_t count,
                                                        uint32_t alignment, bool bitnet) {
  std::vector<GgufTensor> tensors;
  absl::flat_hash_set<std::string> seen;
  uint64_t expected = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = in.offset();
    ODMOE_ASSIGN_OR_RETURN(GgufTensor tensor, ReadTensorInfo(in, i, bitnet));
    if (bitnet && !tensors.empty()) {
      expected = TellTL2(tensor.offset, expected, alignment, tensors.back());
    }
    if (!seen.insert(tensor.name).second) {
      return in.Corrupt(at, absl::StrCat("tensor ", Quote(tensor.name), " is there twice"));
    }
    if (tensor.offset != expected) {
      return in.Corrupt(at, absl::StrCat("tensor ", Quote(tensor.name), " should start at ",
                                         expected, " of the data and says ", tensor.offset));
    }
    uint64_t end = 0;
    if (__builtin_add_overflow(expected, tensor.bytes, &end) ||
        end > std::numeric_limits<uint64_t>::max() - alignment) {
      return in.Corrupt(at, absl::StrCat("tensor ", Quote(tensor.name), " ends past 2^64"));
    }
    expected = RoundUp(end, alignment);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

// The version, after the magic. NOT a GGUF file, and versions we do not know, are the caller's
// mistake; everything after is the file's.
absl::StatusOr<uint32_t> ReadMagicAndVersion(HeaderCursor& in, const RandomAccessFile& file) {
  const std::string& path = file.path();
  char magic[sizeof(kMagic)] = {};
  const auto bytes = absl::MakeSpan(reinterpret_cast<std::byte*>(magic), sizeof(magic));
  if (in.remaining() < sizeof(magic) || !in.Read(bytes, "the magic").ok() ||
      std::memcmp(magic, kMagic, sizeof(magic)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": not a GGUF file: at offset 0: expected 'GGUF', got ",
        Quote(absl::string_view(magic, std::min<uint64_t>(sizeof(magic), in.offset()))),
        LooksLike(file)));
  }
  ODMOE_ASSIGN_OR_RETURN(const uint32_t version, in.Number<uint32_t>("the version"));
  if (version != 0 && (version & 0xffffu) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": at offset 4: a big-endian GGUF file; only little-endian is read: ",
                     "convert it on the machine that wrote it, or from the original checkpoint"));
  }
  if (version < kMinVersion || version > kMaxVersion) {
    const absl::string_view advice =
        version == 1 ? ", and version 1 was short-lived: convert the original checkpoint again"
                     : "";
    return absl::InvalidArgumentError(absl::StrCat(path, ": at offset 4: GGUF version ", version,
                                                   "; versions 2 and 3 are read", advice));
  }
  return version;
}

absl::Status CheckCount(const HeaderCursor& in, uint64_t at, absl::string_view what,
                        uint64_t count, uint64_t least_bytes) {
  if (count <= in.remaining() / least_bytes) return absl::OkStatus();
  return in.Corrupt(at, absl::StrCat(count, " ", what, " of at least ", least_bytes, " bytes; ",
                                     in.remaining(), " bytes are left"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufReader>> GgufReader::Open(
    std::unique_ptr<RandomAccessFile> file) {
  std::unique_ptr<GgufReader> reader(new GgufReader);
  reader->file_ = std::move(file);
  const RandomAccessFile& in_file = *reader->file_;
  HeaderCursor in(in_file);
  ODMOE_ASSIGN_OR_RETURN(reader->version_, ReadMagicAndVersion(in, in_file));
  ODMOE_ASSIGN_OR_RETURN(const uint64_t tensor_count, in.Number<uint64_t>("the tensor count"));
  ODMOE_ASSIGN_OR_RETURN(const uint64_t key_count, in.Number<uint64_t>("the key count"));
  ODMOE_RETURN_IF_ERROR(CheckCount(in, 8, "tensors", tensor_count, kMinTensorBytes));
  ODMOE_RETURN_IF_ERROR(CheckCount(in, 16, "keys", key_count, kMinKeyBytes));
  ODMOE_ASSIGN_OR_RETURN(reader->metadata_, ReadKeys(in, key_count));
  ODMOE_ASSIGN_OR_RETURN(reader->alignment_, FindAlignment(in, reader->metadata_));
  ODMOE_ASSIGN_OR_RETURN(reader->tensors_,
                         ReadTensorInfos(in, tensor_count, reader->alignment_,
                                         HasBitnetTypes(reader->metadata_)));
  reader->header_bytes_ = in.offset();
  reader->data_offset_ = RoundUp(in.offset(), reader->alignment_);
  for (size_t i = 0; i < reader->tensors_.size(); ++i) {
    const GgufTensor& tensor = reader->tensors_[i];
    const uint64_t size = in_file.size();
    if (reader->data_offset_ > size || tensor.offset > size - reader->data_offset_ ||
        tensor.bytes > size - reader->data_offset_ - tensor.offset) {
      return absl::DataLossError(absl::StrCat(
          in_file.path(), ": tensor ", Quote(tensor.name), " takes ", tensor.bytes,
          " bytes from offset ", reader->data_offset_, " + ", tensor.offset, "; the file has ",
          size, " bytes"));
    }
    reader->by_name_.emplace(tensor.name, i);
  }
  return reader;
}

const GgufTensor* GgufReader::Find(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

absl::Status GgufReader::ReadTensor(const GgufTensor& tensor, uint64_t offset,
                                    absl::Span<std::byte> out) const {
  if (offset > tensor.bytes || out.size() > tensor.bytes - offset) {
    return absl::OutOfRangeError(absl::StrCat(file_->path(), ": tensor ", Quote(tensor.name),
                                              " has ", tensor.bytes, " bytes, cannot read ",
                                              out.size(), " at ", offset));
  }
  return file_->ReadAt(data_offset_ + tensor.offset + offset, out);
}

}  // namespace odmoe
