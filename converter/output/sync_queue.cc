#include "converter/output/sync_queue.h"

#include <algorithm>
#include <utility>

#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// A round begins with this much: enough that its commits weigh little, and little enough that the
// disk starts early.
constexpr uint64_t kDueBytes = 32 * kMiB;
constexpr size_t kDueFiles = 64;
// Not synced at most: bounds what has to be checked after a power cut, the page cache that a memory
// limit counts as ours, and the open files (a process has 1024 unless told otherwise).
constexpr uint64_t kMaxBytes = 512 * kMiB;
constexpr size_t kMaxFiles = 384;

}  // namespace

SyncQueue::SyncQueue(Journal& journal)
    : journal_(journal), synced_records_(journal.records()), thread_([this] { Run(); }) {}

SyncQueue::~SyncQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

bool SyncQueue::Due() const {
  return stopping_ || finishing_ || dirty_bytes_ >= kDueBytes || dirty_.size() >= kDueFiles;
}

bool SyncQueue::HasRoom() const {
  return !status_.ok() || (dirty_bytes_ + syncing_bytes_ < kMaxBytes &&
                           dirty_.size() + syncing_files_ < kMaxFiles);
}

absl::Status SyncQueue::Written(const std::shared_ptr<WritableFile>& file, uint64_t bytes,
                                uint32_t item, uint64_t hash) {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &SyncQueue::HasRoom));
  ODMOE_RETURN_IF_ERROR(status_);
  // Under the lock, so that a round's records are of the files it syncs.
  ODMOE_RETURN_IF_ERROR(journal_.AddWritten(item, hash));
  // It is one of the last few, one a writer, or a new one.
  if (std::find(dirty_.rbegin(), dirty_.rend(), file) == dirty_.rend()) dirty_.push_back(file);
  dirty_bytes_ += bytes;
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
    if (stopping_ || (finishing_ && dirty_.empty())) return;
    std::vector<std::shared_ptr<WritableFile>> files = std::exchange(dirty_, {});
    syncing_files_ = files.size();
    syncing_bytes_ = std::exchange(dirty_bytes_, 0);
    const uint64_t end_record = journal_.records();
    mutex_.Unlock();
    absl::Status synced = SyncRound(files, end_record);
    files.clear();  // closes those that nobody writes any more
    mutex_.Lock();
    syncing_files_ = 0;
    syncing_bytes_ = 0;
    if (!synced.ok()) {
      status_ = std::move(synced);
      return;
    }
  }
}

absl::Status SyncQueue::SyncRound(const std::vector<std::shared_ptr<WritableFile>>& files,
                                  uint64_t end_record) {
  for (const std::shared_ptr<WritableFile>& file : files) file->StartSync();
  for (const std::shared_ptr<WritableFile>& file : files) {
    const absl::Status synced = file->Sync();
    if (synced.ok()) continue;
    // The kernel reports a lost page once and then takes it for clean: reading it back would show
    // bytes that the disk does not have. So they do not count, whatever they look like.
    journal_.MarkLost();
    return synced;
  }
  // The record before this one, at the latest: losing it costs a check of bytes, nothing more.
  ODMOE_RETURN_IF_ERROR(journal_.Sync());
  ODMOE_RETURN_IF_ERROR(journal_.AddSynced(synced_records_, end_record));
  synced_records_ = end_record;
  return absl::OkStatus();
}

}  // namespace odmoe
