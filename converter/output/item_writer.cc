#include "converter/output/item_writer.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

absl::Status Give(const ItemInHand& hand, uint64_t at, absl::Span<const std::byte> piece,
                  StepProgress& progress) {
  hand.hash->Update(piece);
  ODMOE_RETURN_IF_ERROR(hand.sink(at, piece, hand.hash->Digest()));
  return progress.Advance(hand.item->name, piece.size());
}

// Takes the bytes [at, at + bytes) of an item as they are made.
class MadeBytes {
 public:
  MadeBytes(const ItemInHand& hand, uint64_t at, uint64_t bytes, StepProgress& progress)
      : hand_(hand), at_(at), bytes_(bytes), progress_(progress) {}
  MadeBytes(const MadeBytes&) = delete;
  MadeBytes& operator=(const MadeBytes&) = delete;

  // Lives as long as this does.
  ByteSink sink() {
    return [this](absl::Span<const std::byte> piece) { return Take(piece); };
  }

  // Whether all have come.
  absl::Status Check() const { return done_ == bytes_ ? absl::OkStatus() : Wrong(done_); }

 private:
  absl::Status Take(absl::Span<const std::byte> piece) {
    if (piece.size() > bytes_ - done_) return Wrong(done_ + piece.size());
    const uint64_t from = at_ + done_;
    done_ += piece.size();
    const uint64_t known =
        std::min<uint64_t>(hand_.begun > from ? hand_.begun - from : 0, piece.size());
    if (known == piece.size()) return progress_.CheckCancelled();
    return Give(hand_, from + known, piece.subspan(known), progress_);
  }

  absl::Status Wrong(uint64_t got) const {
    return absl::InternalError(
        absl::StrCat("'", hand_.item->name, "' has ", bytes_, " bytes, got ", got));
  }

  const ItemInHand& hand_;
  const uint64_t at_;
  const uint64_t bytes_;
  StepProgress& progress_;
  uint64_t done_ = 0;
};

}  // namespace

absl::StatusOr<ItemWriter> ItemWriter::Create(StepProgress& progress, size_t piece_bytes) {
  ODMOE_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::Allocate(piece_bytes));
  return ItemWriter(progress, std::move(buffer));
}

absl::Status ItemWriter::Write(const ItemInHand& hand) {
  uint64_t at = 0;
  for (const OutputPart& part : hand.item->parts) {
    if (part.file != nullptr) {
      ODMOE_RETURN_IF_ERROR(Copy(hand, part, at));
    } else if (at + part.bytes > hand.begun) {
      MadeBytes made(hand, at, part.bytes, *progress_);
      ODMOE_RETURN_IF_ERROR(part.make(made.sink()));
      ODMOE_RETURN_IF_ERROR(made.Check());
    }
    at += part.bytes;
  }
  return absl::OkStatus();
}

absl::Status ItemWriter::Copy(const ItemInHand& hand, const OutputPart& part, uint64_t at) {
  const size_t piece_bytes = buffer_.span().size();
  for (uint64_t done = hand.begun > at ? hand.begun - at : 0; done < part.bytes;) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(part.bytes - done, piece_bytes));
    const absl::Span<std::byte> piece = buffer_.span().subspan(0, count);
    ODMOE_RETURN_IF_ERROR(part.file->ReadAt(part.offset + done, piece));
    ODMOE_RETURN_IF_ERROR(Give(hand, at + done, piece, *progress_));
    done += count;
  }
  return absl::OkStatus();
}

absl::Status ItemWriter::WriteTogether(
    absl::Span<const ItemInHand> hands,
    const std::function<absl::Status(absl::Span<const ByteSink>)>& make) {
  std::vector<std::unique_ptr<MadeBytes>> made(hands.size());
  std::vector<ByteSink> sinks(hands.size());
  for (size_t i = 0; i < hands.size(); ++i) {
    if (hands[i].item == nullptr) continue;
    made[i] = std::make_unique<MadeBytes>(hands[i], 0, hands[i].item->bytes(), *progress_);
    sinks[i] = made[i]->sink();
  }
  ODMOE_RETURN_IF_ERROR(make(sinks));
  for (const std::unique_ptr<MadeBytes>& item : made) {
    if (item != nullptr) ODMOE_RETURN_IF_ERROR(item->Check());
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> ItemWriter::Matches(const OutputItem& item, const RandomAccessFile& file,
                                         uint64_t bytes, uint64_t expected, Xxh3& hash) {
  hash.Reset();
  for (uint64_t done = 0; done < bytes;) {
    const size_t count =
        static_cast<size_t>(std::min<uint64_t>(bytes - done, buffer_.span().size()));
    const absl::Span<std::byte> piece = buffer_.span().subspan(0, count);
    ODMOE_RETURN_IF_ERROR(file.ReadAt(item.offset + done, piece));
    hash.Update(piece);
    ODMOE_RETURN_IF_ERROR(progress_->CheckCancelled());
    done += count;
  }
  if (hash.Digest() != expected) return false;
  ODMOE_RETURN_IF_ERROR(progress_->Advance(item.name, bytes));
  return true;
}

}  // namespace odmoe
