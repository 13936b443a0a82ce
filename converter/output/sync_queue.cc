#include "converter/output/sync_queue.h"

#include <algorithm>
#include <utility>

#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// A round begins with this much: enough that its commits weigh little, and little enough that the
// disk starts early.
constexpr uint64_t kDueBytes = 64 * kMiB;
// Not synced at most: bounds what has to be checked after a power cut, and the page cache that a
// memory limit counts as ours.
constexpr uint64_t kMaxBytes = kGiB;
// From here on a sync of the whole file system costs less than one of each file.
constexpr size_t kManyFiles = 4;

}  // namespace

SyncQueue::SyncQueue(FileSystem& fs, std::string folder, Journal& journal)
    : fs_(fs),
      folder_(std::move(folder)),
      journal_(journal),
      synced_records_(journal.records()),
      thread_([this] { Run(); }) {}

SyncQueue::~SyncQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

bool SyncQueue::Due() const { return stopping_ || finishing_ || dirty_.bytes >= kDueBytes; }

bool SyncQueue::HasRoom() const {
  return !status_.ok() || dirty_.bytes + syncing_bytes_ < kMaxBytes;
}

absl::Status SyncQueue::Written(const std::shared_ptr<WritableFile>& file, uint64_t bytes,
                                uint32_t item, uint64_t hash) {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &SyncQueue::HasRoom));
  ODMOE_RETURN_IF_ERROR(status_);
  // Under the lock, so that a round's records are of the files it syncs.
  ODMOE_RETURN_IF_ERROR(journal_.AddWritten(item, hash));
  dirty_.bytes += bytes;
  if (dirty_.many) return absl::OkStatus();
  const auto& files = dirty_.files;
  if (std::find(files.begin(), files.end(), file) == files.end()) dirty_.files.push_back(file);
  if (files.size() < kManyFiles) return absl::OkStatus();
  dirty_.many = true;
  dirty_.files.clear();
  return absl::OkStatus();
}

absl::Status SyncQueue::Finish() {
  {
    absl::MutexLock lock(&mutex_);
    finishing_ = true;
  }
  thread_.join();
  absl::MutexLock lock(&mutex_);
  return status_;
}

void SyncQueue::Run() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(this, &SyncQueue::Due));
    if (stopping_ || (finishing_ && dirty_.files.empty() && !dirty_.many)) return;
    Round round = std::exchange(dirty_, {});
    syncing_bytes_ = round.bytes;
    const uint64_t end_record = journal_.records();
    mutex_.Unlock();
    absl::Status synced = SyncAndRecord(round, end_record);
    round = {};  // closes the files that nobody writes any more
    mutex_.Lock();
    syncing_bytes_ = 0;
    if (!synced.ok()) {
      status_ = std::move(synced);
      return;
    }
  }
}

absl::Status SyncQueue::Sync(const Round& round) {
  if (round.many) return fs_.SyncFileSystem(folder_);
  for (const std::shared_ptr<WritableFile>& file : round.files) {
    ODMOE_RETURN_IF_ERROR(file->Sync());
  }
  return journal_.Sync();
}

absl::Status SyncQueue::SyncAndRecord(const Round& round, uint64_t end_record) {
  const absl::Status synced = Sync(round);
  if (!synced.ok()) {
    // The kernel reports a lost page once and then takes it for clean: reading it back would show
    // bytes that the disk does not have. So they do not count, whatever they look like.
    journal_.MarkLost(synced);
    return synced;
  }
  // Is itself durable with the next round: losing it costs a check of bytes, nothing more.
  ODMOE_RETURN_IF_ERROR(journal_.AddSynced(synced_records_, end_record));
  synced_records_ = end_record;
  return absl::OkStatus();
}

}  // namespace odmoe
