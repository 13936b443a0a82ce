// What a conversion has done so far, on disk, so that a later run can go on from there.
//
// A row of 32-byte records, little-endian:
//
//   kind u32 | number u32 | a u64 | b u64 | check u64
//
//   kind          number  a, b
//   1 start               the conversion's fingerprint; always the first record
//   2 written     item    a: XXH3-64 of its bytes, which are in the file, though maybe not on the
//                         disk
//   3 synced              the records [a, b) are of bytes that are on the disk
//   4 lost                the written records so far that no synced record names do not count: the
//                         disk failed to take their bytes
//   5 emptied     file    the records so far of this file's items do not count: it was made anew
//   6 naming              every item is on the disk; from here on files get their names
//   7 begun       item    a: bytes of it that are in the file, though maybe not on the disk, less
//                         than all; b: XXH3-64 of them
//
// `check` is XXH3-64 of the 24 bytes before it, seeded with the record's position. The first record
// that does not match, or is cut short, ends the journal. A later record of an item counts more
// than an earlier one. Records are appended after the bytes they speak of are written.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "converter/output/output_plan.h"
#include "services/core/io/file.h"

namespace odmoe {

// What a journal says of one item.
struct ItemRecord {
  enum class State {
    kMissing,
    kBegun,    // its first bytes; to be checked against the file, as a power cut may have lost them
    kWritten,  // all of it; to be checked likewise
    kSynced,   // all of it, and on the disk
  };
  State state = State::kMissing;
  uint64_t hash = 0;         // of those bytes
  uint64_t begun_bytes = 0;  // where begun
};

// A journal as it was found.
struct JournalContent {
  std::vector<ItemRecord> items;  // by file, then item, as in the plan
  bool naming = false;
  uint64_t records = 0;           // that are valid
};

// NOT_FOUND: no journal, or one without a valid first record, which holds no work.
// FAILED_PRECONDITION: of another conversion than `plan`'s, told by the fingerprint. DATA_LOSS: it
// names items or files that the plan has not.
absl::StatusOr<JournalContent> ReadJournal(FileSystem& fs, const OutputPlan& plan);

// A journal being written. Thread-safe, but for Begin and GoOn.
class Journal {
 public:
  // Opens the file, or creates it empty, and keeps other processes from doing the same.
  // FAILED_PRECONDITION: another one has it.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(FileSystem& fs, const OutputPlan& plan);

  // First of all, one of these: empties it and writes the start record, or cuts it after the
  // `records` that are valid.
  absl::Status Begin(const OutputFingerprint& fingerprint);
  absl::Status GoOn(uint64_t records);

  absl::Status AddBegun(uint32_t item, uint64_t bytes, uint64_t hash);
  absl::Status AddWritten(uint32_t item, uint64_t hash);
  absl::Status AddSynced(uint64_t first_record, uint64_t end_record);
  // Ends the journal for this run, as `why` says: whatever is recorded later would be of bytes that
  // may be lost too. Where the record cannot be written either, removes the journal.
  void MarkLost(const absl::Status& why);
  absl::Status AddEmptied(uint32_t file);
  absl::Status AddNaming();
  // Makes the records so far durable.
  absl::Status Sync() { return file_->Sync(); }
  // Records so far: the position of the next.
  uint64_t records() const;

 private:
  Journal(FileSystem& fs, std::unique_ptr<WritableFile> file) : fs_(fs), file_(std::move(file)) {}
  absl::Status Add(uint32_t kind, uint32_t number, uint64_t a, uint64_t b);
  absl::Status AddLocked(uint32_t kind, uint32_t number, uint64_t a, uint64_t b)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  FileSystem& fs_;
  const std::unique_ptr<WritableFile> file_;
  mutable absl::Mutex mutex_;
  uint64_t records_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status lost_ ABSL_GUARDED_BY(mutex_);  // not OK: nothing more is added
};

}  // namespace odmoe
