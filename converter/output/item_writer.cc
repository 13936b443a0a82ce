#include "converter/output/item_writer.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// Stays in a core's second-level cache between being read, hashed and written.
constexpr size_t kPieceBytes = 512 * kKiB;

// Takes bytes as they are made: hashes them, writes them to their place, tells progress.
class MadeBytes {
 public:
  MadeBytes(const OutputItem& item, uint64_t bytes, uint64_t to, WritableFile& out, Xxh3& hash,
            StepProgress& progress)
      : item_(item), bytes_(bytes), to_(to), out_(out), hash_(hash), progress_(progress) {}
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
    hash_.Update(piece);
    ODMOE_RETURN_IF_ERROR(out_.WriteAt(to_ + done_, piece));
    done_ += piece.size();
    return progress_.Advance(item_.name, piece.size());
  }

  absl::Status Wrong(uint64_t got) const {
    return absl::InternalError(
        absl::StrCat("'", item_.name, "' has ", bytes_, " bytes, got ", got));
  }

  const OutputItem& item_;
  const uint64_t bytes_;
  const uint64_t to_;
  WritableFile& out_;
  Xxh3& hash_;
  StepProgress& progress_;
  uint64_t done_ = 0;
};

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
  MadeBytes made(item, part.bytes, to, out, hash_, *progress_);
  ODMOE_RETURN_IF_ERROR(part.make(made.sink()));
  return made.Check();
}

absl::StatusOr<std::vector<uint64_t>> ItemWriter::WriteTogether(
    absl::Span<const Place> places,
    const std::function<absl::Status(absl::Span<const ByteSink>)>& make) {
  std::vector<Xxh3> hashes(places.size());
  std::vector<std::unique_ptr<MadeBytes>> made(places.size());
  std::vector<ByteSink> sinks(places.size());
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i].out == nullptr) continue;
    const OutputItem& item = *places[i].item;
    made[i] = std::make_unique<MadeBytes>(item, item.bytes(), item.offset, *places[i].out,
                                          hashes[i], *progress_);
    sinks[i] = made[i]->sink();
  }
  ODMOE_RETURN_IF_ERROR(make(sinks));
  std::vector<uint64_t> digests(places.size(), 0);
  for (size_t i = 0; i < places.size(); ++i) {
    if (made[i] == nullptr) continue;
    ODMOE_RETURN_IF_ERROR(made[i]->Check());
    digests[i] = hashes[i].Digest();
  }
  return digests;
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
