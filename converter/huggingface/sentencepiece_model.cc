#include "converter/huggingface/sentencepiece_model.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"

namespace odmoe {
namespace {

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr absl::string_view kWireNames[] = {"a number", "8 bytes",     "a length and bytes",
                                            "a group",  "a group end", "4 bytes"};

// A field as it lies in the file. Which of the members holds depends on the type.
struct Field {
  uint32_t number = 0;
  uint32_t type = kVarint;
  size_t offset = 0;  // in the file
  uint64_t value = 0;
  absl::string_view bytes;
  size_t bytes_offset = 0;
};

// The fields of one message, in order. Reads nothing beyond it.
class MessageReader {
 public:
  MessageReader(absl::string_view bytes, size_t offset, const std::string& source)
      : bytes_(bytes), offset_(offset), source_(source) {}

  // Null: the message has ended.
  absl::StatusOr<std::optional<Field>> Next() {
    if (at_ == bytes_.size()) return std::optional<Field>();
    Field field;
    field.offset = offset_ + at_;
    ODMOE_ASSIGN_OR_RETURN(const uint64_t tag, ReadVarint());
    field.number = static_cast<uint32_t>(tag >> 3);
    field.type = static_cast<uint32_t>(tag & 7);
    if (field.number == 0 || tag >> 32 != 0) return Bad(field.offset, "expected a field's tag");
    switch (field.type) {
      case kVarint: {
        ODMOE_ASSIGN_OR_RETURN(field.value, ReadVarint());
        break;
      }
      case kFixed64:
      case kFixed32: {
        ODMOE_ASSIGN_OR_RETURN(field.bytes, Take(field.type == kFixed64 ? 8 : 4));
        break;
      }
      case kBytes: {
        ODMOE_ASSIGN_OR_RETURN(const uint64_t length, ReadVarint());
        field.bytes_offset = offset_ + at_;
        ODMOE_ASSIGN_OR_RETURN(field.bytes, Take(length));
        break;
      }
      default:
        return Bad(field.offset, absl::StrFormat("a field of wire type %d", field.type));
    }
    return std::optional<Field>(field);
  }

  // OK where the field has this type.
  absl::Status Expect(const Field& field, WireType type, absl::string_view name) const {
    if (field.type == type) return absl::OkStatus();
    return Bad(field.offset, absl::StrFormat("%s should be %s, but is %s", name, kWireNames[type],
                                             kWireNames[field.type]));
  }

  absl::Status Bad(size_t offset, absl::string_view what) const {
    return absl::DataLossError(absl::StrFormat(
        "%s: at offset %d: not a SentencePiece model: %s", source_, offset, what));
  }

 private:
  absl::StatusOr<uint64_t> ReadVarint() {
    const size_t begin = at_;
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && at_ < bytes_.size(); shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(bytes_[at_++]);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    return Bad(offset_ + begin, "a number that does not end");
  }

  absl::StatusOr<absl::string_view> Take(uint64_t length) {
    if (length > bytes_.size() - at_) {
      return Bad(offset_ + at_, absl::StrFormat("expected %d bytes, %d are left", length,
                                                bytes_.size() - at_));
    }
    const absl::string_view taken = bytes_.substr(at_, length);
    at_ += length;
    return taken;
  }

  const absl::string_view bytes_;
  const size_t offset_;  // of the message in the file
  const std::string& source_;
  size_t at_ = 0;
};

float FloatOf(absl::string_view bytes) {
  uint32_t bits = 0;
  for (size_t i = 4; i-- > 0;) bits = bits << 8 | static_cast<uint8_t>(bytes[i]);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

absl::StatusOr<SentencePiece> ParsePiece(const Field& message, const std::string& source) {
  SentencePiece piece;
  MessageReader reader(message.bytes, message.bytes_offset, source);
  for (;;) {
    ODMOE_ASSIGN_OR_RETURN(const std::optional<Field> field, reader.Next());
    if (!field) return piece;
    if (field->number == 1) {
      ODMOE_RETURN_IF_ERROR(reader.Expect(*field, kBytes, "a piece's text"));
      if (FirstInvalidUtf8(field->bytes) != field->bytes.size()) {
        return reader.Bad(field->bytes_offset + FirstInvalidUtf8(field->bytes),
                          "a piece's text is not UTF-8");
      }
      piece.text = std::string(field->bytes);
    } else if (field->number == 2) {
      ODMOE_RETURN_IF_ERROR(reader.Expect(*field, kFixed32, "a piece's score"));
      piece.score = FloatOf(field->bytes);
      if (std::isnan(piece.score)) return reader.Bad(field->offset, "a piece's score is no number");
    } else if (field->number == 3) {
      ODMOE_RETURN_IF_ERROR(reader.Expect(*field, kVarint, "a piece's type"));
      if (field->value < SentencePiece::kNormal || field->value > SentencePiece::kByte) {
        return reader.Bad(field->offset, absl::StrFormat("a piece's type is %d, expected 1 to 6",
                                                         field->value));
      }
      piece.type = static_cast<SentencePiece::Type>(field->value);
    }
  }
}

absl::Status ParseTrainer(const Field& message, const std::string& source,
                          SentencePieceModel& model) {
  MessageReader reader(message.bytes, message.bytes_offset, source);
  for (;;) {
    ODMOE_ASSIGN_OR_RETURN(const std::optional<Field> field, reader.Next());
    if (!field) return absl::OkStatus();
    if (field->number != 3) continue;
    ODMOE_RETURN_IF_ERROR(reader.Expect(*field, kVarint, "the model's kind"));
    if (field->value < SentencePieceModel::kUnigram ||
        field->value > SentencePieceModel::kCharacters) {
      return reader.Bad(field->offset,
                        absl::StrFormat("the model's kind is %d, expected 1 to 4", field->value));
    }
    model.kind = static_cast<SentencePieceModel::Kind>(field->value);
  }
}

absl::Status ParseNormalizer(const Field& message, const std::string& source,
                             SentencePieceModel& model) {
  MessageReader reader(message.bytes, message.bytes_offset, source);
  for (;;) {
    ODMOE_ASSIGN_OR_RETURN(const std::optional<Field> field, reader.Next());
    if (!field) return absl::OkStatus();
    if (field->number == 2) {
      ODMOE_RETURN_IF_ERROR(reader.Expect(*field, kBytes, "the character map"));
      model.precompiled_charsmap = std::string(field->bytes);
    } else if (field->number == 3 || field->number == 4) {
      ODMOE_RETURN_IF_ERROR(reader.Expect(*field, kVarint, "the normalizer's flag"));
      (field->number == 3 ? model.add_dummy_prefix : model.remove_extra_whitespaces) =
          field->value != 0;
    }
  }
}

}  // namespace

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(absl::string_view bytes,
                                                           const std::string& source) {
  SentencePieceModel model;
  MessageReader reader(bytes, 0, source);
  for (;;) {
    ODMOE_ASSIGN_OR_RETURN(const std::optional<Field> field, reader.Next());
    if (!field) break;
    if (field->number < 1 || field->number > 3) continue;
    ODMOE_RETURN_IF_ERROR(reader.Expect(*field, kBytes, "a part of the model"));
    if (field->number == 1) {
      ODMOE_ASSIGN_OR_RETURN(SentencePiece piece, ParsePiece(*field, source));
      model.pieces.push_back(std::move(piece));
    } else if (field->number == 2) {
      ODMOE_RETURN_IF_ERROR(ParseTrainer(*field, source, model));
    } else {
      ODMOE_RETURN_IF_ERROR(ParseNormalizer(*field, source, model));
    }
  }
  if (model.pieces.empty()) return reader.Bad(bytes.size(), "it has no pieces");
  return model;
}

}  // namespace odmoe
