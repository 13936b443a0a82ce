#include "converter/output/journal.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

enum Kind : uint32_t {
  kStart = 1,
  kWritten = 2,
  kSynced = 3,
  kLost = 4,
  kEmptied = 5,
  kNaming = 6,
  kBegun = 7,
};

struct JournalRecord {
  uint32_t kind = 0;
  uint32_t number = 0;
  uint64_t a = 0;
  uint64_t b = 0;
  uint64_t check = 0;
};
static_assert(sizeof(JournalRecord) == 32);

uint64_t CheckOf(const JournalRecord& record, uint64_t position) {
  return XXH3_64bits_withSeed(&record, offsetof(JournalRecord, check), position);
}

// Reads records one after the other, a piece of the file at a time.
class RecordReader {
 public:
  explicit RecordReader(const RandomAccessFile& file) : file_(file) {}

  // False at the end: of the file, or of what is valid.
  absl::StatusOr<bool> Next(JournalRecord& record) {
    if (position_ == first_ + buffer_.size()) {
      ODMOE_RETURN_IF_ERROR(Fill());
      if (buffer_.empty()) return false;
    }
    record = buffer_[position_ - first_];
    if (record.check != CheckOf(record, position_)) return false;
    ++position_;
    return true;
  }
  // Records taken so far.
  uint64_t position() const { return position_; }

 private:
  absl::Status Fill() {
    constexpr uint64_t kRecordsAtOnce = 64 * kKiB / sizeof(JournalRecord);
    first_ = position_;
    const uint64_t whole = file_.size() / sizeof(JournalRecord);
    buffer_.resize(std::min(kRecordsAtOnce, whole - std::min(whole, first_)));
    return file_.ReadAt(first_ * sizeof(JournalRecord),
                        absl::MakeSpan(reinterpret_cast<std::byte*>(buffer_.data()),
                                       buffer_.size() * sizeof(JournalRecord)));
  }

  const RandomAccessFile& file_;
  std::vector<JournalRecord> buffer_;
  uint64_t first_ = 0;     // position of buffer_[0]
  uint64_t position_ = 0;
};

// Replays a journal's records.
class Replay {
 public:
  explicit Replay(const OutputPlan& plan) : plan_(plan) {
    size_t items = 0;
    for (const OutputFile& file : plan.files) {
      first_item_.push_back(items);
      items += file.items.size();
      for (const OutputItem& item : file.items) item_bytes_.push_back(item.bytes());
    }
    content_.items.resize(items);
    recorded_at_.resize(items);
    is_unsynced_.resize(items);
  }

  absl::Status Apply(const JournalRecord& record, uint64_t position) {
    switch (record.kind) {
      case kWritten:
        if (record.number >= content_.items.size()) return Wrong(record, position);
        Record({ItemRecord::State::kWritten, record.a}, record.number, position);
        return absl::OkStatus();
      case kBegun:
        if (record.number >= content_.items.size() || record.a >= item_bytes_[record.number]) {
          return Wrong(record, position);
        }
        Record({ItemRecord::State::kBegun, record.b, record.a}, record.number, position);
        return absl::OkStatus();
      case kSynced:
        return ApplySynced(record);
      case kLost:
        for (uint32_t item : unsynced_) {
          if (content_.items[item].state != ItemRecord::State::kSynced) content_.items[item] = {};
          is_unsynced_[item] = false;
        }
        unsynced_.clear();
        return absl::OkStatus();
      case kEmptied:
        if (record.number >= plan_.files.size()) return Wrong(record, position);
        for (size_t i = 0; i < plan_.files[record.number].items.size(); ++i) {
          content_.items[first_item_[record.number] + i] = {};
        }
        return absl::OkStatus();
      case kNaming:
        content_.naming = true;
        return absl::OkStatus();
      default:
        return Wrong(record, position);
    }
  }

  JournalContent Take(uint64_t records) {
    content_.records = records;
    return std::move(content_);
  }

 private:
  void Record(const ItemRecord& item, uint32_t number, uint64_t position) {
    content_.items[number] = item;
    recorded_at_[number] = position;
    if (!is_unsynced_[number]) unsynced_.push_back(number);
    is_unsynced_[number] = true;
  }

  // What is begun stays so: its file may not have been among those synced.
  absl::Status ApplySynced(const JournalRecord& record) {
    std::vector<uint32_t> left;
    for (uint32_t item : unsynced_) {
      const bool named = recorded_at_[item] >= record.a && recorded_at_[item] < record.b;
      ItemRecord::State& state = content_.items[item].state;
      if (!named || state == ItemRecord::State::kBegun) {
        left.push_back(item);
        continue;
      }
      is_unsynced_[item] = false;
      if (state == ItemRecord::State::kWritten) state = ItemRecord::State::kSynced;
    }
    unsynced_ = std::move(left);
    return absl::OkStatus();
  }

  absl::Status Wrong(const JournalRecord& record, uint64_t position) const {
    return absl::DataLossError(absl::StrCat(
        plan_.journal_path, ": record ", position, " (kind ", record.kind, ", number ",
        record.number, ") does not fit a conversion of ", content_.items.size(), " items in ",
        plan_.files.size(), " files; --restart begins anew"));
  }

  const OutputPlan& plan_;
  std::vector<size_t> first_item_;   // of each file
  JournalContent content_;
  std::vector<uint64_t> item_bytes_;
  std::vector<uint64_t> recorded_at_;  // position of each item's last record
  std::vector<uint32_t> unsynced_;     // items with a record that no synced one has named since
  std::vector<bool> is_unsynced_;
};

}  // namespace

absl::StatusOr<JournalContent> ReadJournal(FileSystem& fs, const OutputPlan& plan) {
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file,
                         fs.OpenForRead(plan.journal_path));
  RecordReader reader(*file);
  JournalRecord record;
  ODMOE_ASSIGN_OR_RETURN(bool more, reader.Next(record));
  if (!more || record.kind != kStart) {
    return absl::NotFoundError(absl::StrCat(plan.journal_path, ": no record"));
  }
  if (OutputFingerprint{record.a, record.b} != plan.fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat(
        plan.destination, " holds the unfinished output of another conversion (the source, the ",
        "options or this program's version differ): finish that one with what it was started ",
        "with, or use --restart to begin anew"));
  }
  Replay replay(plan);
  while (true) {
    ODMOE_ASSIGN_OR_RETURN(more, reader.Next(record));
    if (!more) return replay.Take(reader.position());
    ODMOE_RETURN_IF_ERROR(replay.Apply(record, reader.position() - 1));
  }
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(FileSystem& fs, const OutputPlan& plan) {
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs.OpenForUpdate(plan.journal_path));
  const absl::Status locked = file->Lock();
  if (!locked.ok()) {
    return absl::Status(locked.code(),
                        absl::StrCat("cannot write ", plan.destination, ": ", locked.message()));
  }
  return std::unique_ptr<Journal>(new Journal(fs, std::move(file)));
}

absl::Status Journal::Begin(const OutputFingerprint& fingerprint) {
  ODMOE_RETURN_IF_ERROR(GoOn(0));
  return Add(kStart, 0, fingerprint[0], fingerprint[1]);
}

absl::Status Journal::GoOn(uint64_t records) {
  // A torn tail must not be taken for what comes after it.
  ODMOE_RETURN_IF_ERROR(file_->Resize(records * sizeof(JournalRecord)));
  absl::MutexLock lock(&mutex_);
  records_ = records;
  return absl::OkStatus();
}

absl::Status Journal::Add(uint32_t kind, uint32_t number, uint64_t a, uint64_t b) {
  absl::MutexLock lock(&mutex_);
  ODMOE_RETURN_IF_ERROR(lost_);
  return AddLocked(kind, number, a, b);
}

absl::Status Journal::AddLocked(uint32_t kind, uint32_t number, uint64_t a, uint64_t b) {
  JournalRecord record{.kind = kind, .number = number, .a = a, .b = b};
  record.check = CheckOf(record, records_);
  ODMOE_RETURN_IF_ERROR(file_->WriteAt(
      records_ * sizeof(JournalRecord),
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&record), sizeof(record))));
  ++records_;
  return absl::OkStatus();
}

absl::Status Journal::AddBegun(uint32_t item, uint64_t bytes, uint64_t hash) {
  return Add(kBegun, item, bytes, hash);
}
absl::Status Journal::AddWritten(uint32_t item, uint64_t hash) {
  return Add(kWritten, item, hash, 0);
}
absl::Status Journal::AddSynced(uint64_t first_record, uint64_t end_record) {
  return Add(kSynced, 0, first_record, end_record);
}
void Journal::MarkLost(const absl::Status& why) {
  absl::MutexLock lock(&mutex_);
  lost_ = why;
  if (AddLocked(kLost, 0, 0, 0).ok()) return;
  // The failure that brought us here is being reported.
  fs_.Remove(file_->path()).IgnoreError();
}
absl::Status Journal::AddEmptied(uint32_t file) { return Add(kEmptied, file, 0, 0); }
absl::Status Journal::AddNaming() { return Add(kNaming, 0, 0, 0); }

uint64_t Journal::records() const {
  absl::MutexLock lock(&mutex_);
  return records_;
}

}  // namespace odmoe
