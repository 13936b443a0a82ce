#include "converter/output/item_writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// Stays in a core's second-level cache between being read, hashed and written.
constexpr size_t kPieceBytes = 512 * kKiB;

}  // namespace

absl::StatusOr<ItemWriter> ItemWriter::Create(StepProgress& progress) {
  ODMOE_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::Allocate(kPieceBytes));
  return ItemWriter(progress, std::move(buffer));
}

absl::StatusOr<uint64_t> ItemWriter::Write(const OutputItem& item, WritableFile& out) {
  hash_.Reset();
  uint64_t to = item.offset;
  for (const OutputPart& part : item.parts) {
    ODMOE_RETURN_IF_ERROR(part.file != nullptr ? Copy(item, part, to, out)
                                               : Make(item, part, to, out));
    to += part.bytes;
  }
  return hash_.Digest();
}

absl::Status ItemWriter::Copy(const OutputItem& item, const OutputPart& part, uint64_t to,
                              WritableFile& out) {
  for (uint64_t done = 0; done < part.bytes;) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(part.bytes - done, kPieceBytes));
    const absl::Span<std::byte> piece = buffer_.span().subspan(0, count);
    ODMOE_RETURN_IF_ERROR(part.file->ReadAt(part.offset + done, piece));
    hash_.Update(piece);
    ODMOE_RETURN_IF_ERROR(out.WriteAt(to + done, piece));
    ODMOE_RETURN_IF_ERROR(progress_->Advance(item.name, count));
    done += count;
  }
  return absl::OkStatus();
}

absl::Status ItemWriter::Make(const OutputItem& item, const OutputPart& part, uint64_t to,
                              WritableFile& out) {
  uint64_t done = 0;
  const absl::Status made = part.make([&](absl::Span<const std::byte> piece) -> absl::Status {
    if (piece.size() > part.bytes - done) {
      return absl::InternalError(absl::StrCat("'", item.name, "' has ", part.bytes, " bytes, got ",
                                              done + piece.size()));
    }
    hash_.Update(piece);
    ODMOE_RETURN_IF_ERROR(out.WriteAt(to + done, piece));
    done += piece.size();
    return progress_->Advance(item.name, piece.size());
  });
  ODMOE_RETURN_IF_ERROR(made);
  if (done == part.bytes) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("'", item.name, "' has ", part.bytes, " bytes, got ", done));
}

absl::StatusOr<bool> ItemWriter::Matches(const OutputItem& item, const RandomAccessFile& file,
                                         uint64_t hash) {
  hash_.Reset();
  const uint64_t bytes = item.bytes();
  for (uint64_t done = 0; done < bytes;) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(bytes - done, kPieceBytes));
    const absl::Span<std::byte> piece = buffer_.span().subspan(0, count);
    ODMOE_RETURN_IF_ERROR(file.ReadAt(item.offset + done, piece));
    hash_.Update(piece);
    ODMOE_RETURN_IF_ERROR(progress_->CheckCancelled());
    done += count;
  }
  if (hash_.Digest() != hash) return false;
  ODMOE_RETURN_IF_ERROR(progress_->Advance(item.name, bytes));
  return true;
}

}  // namespace odmoe
