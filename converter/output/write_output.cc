#include "converter/output/write_output.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "converter/output/item_writer.h"
#include "converter/output/journal.h"
#include "converter/output/name_files.h"
#include "converter/output/partial_files.h"
#include "converter/output/sync_queue.h"
#include "converter/output/xxh3.h"
#include "services/core/base/available_cores.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/io/file_hash.h"

namespace odmoe {
namespace {

int WorkerCount(int asked, size_t items) {
  if (asked <= 0) {
    asked = std::min(AvailableCores(), kMaxDefaultWorkers);
  }
  const auto most = static_cast<size_t>(std::min(asked, kMaxWorkers));
  return static_cast<int>(std::clamp<size_t>(items, 1, most));
}

// Takes what a journal says of files that are not there, or not whole, back. Returns those files.
std::vector<uint32_t> DropMissingFiles(const OutputPlan& plan, FileSystem& fs,
                                       JournalContent& content) {
  std::vector<uint32_t> missing;
  size_t first = 0;
  for (size_t i = 0; i < plan.files.size(); ++i) {
    const OutputFile& file = plan.files[i];
    const auto begin = content.items.begin() + static_cast<ptrdiff_t>(first);
    const auto end = begin + static_cast<ptrdiff_t>(file.items.size());
    first += file.items.size();
    const bool recorded = std::any_of(begin, end, [](const ItemRecord& item) {
      return item.state != ItemRecord::State::kMissing;
    });
    if (!recorded) continue;
    const auto partial = fs.OpenForRead(PartialPath(file.path));
    const uint64_t bytes = partial.ok() ? (*partial)->size() : 0;
    // A file's only item gives it its length as it grows.
    const bool begun = file.items.size() == 1 && begin->state == ItemRecord::State::kBegun &&
                       bytes >= file.items[0].offset + begin->begun_bytes && bytes < file.bytes;
    if (begun || (partial.ok() && bytes == file.bytes)) continue;
    // While files get their names, some have theirs already.
    if (content.naming && IsFileOfSize(fs, file.path, file.bytes)) continue;
    std::fill(begin, end, ItemRecord{});
    missing.push_back(static_cast<uint32_t>(i));
  }
  return missing;
}

// Those of another conversion as well, where they lie in folders that are ours alone.
absl::Status RemovePartialFiles(const OutputPlan& plan, FileSystem& fs) {
  for (const std::string& folder : plan.folders) {
    if (folder == FolderOf(plan.journal_path)) continue;
    ODMOE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.ListDirectory(folder));
    for (const std::string& name : names) {
      if (!absl::EndsWith(name, PartialPath(""))) continue;
      ODMOE_RETURN_IF_ERROR(fs.Remove(absl::StrCat(folder, "/", name)));
    }
  }
  for (const OutputFile& file : plan.files) {
    const bool listed = std::count(plan.folders.begin(), plan.folders.end(), FolderOf(file.path));
    const absl::Status removed = listed ? absl::OkStatus() : fs.Remove(PartialPath(file.path));
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  }
  return absl::OkStatus();
}

// One run of WriteOutput.
class OutputRun {
 public:
  OutputRun(const OutputPlan& plan, FileSystem& fs, const WriteOptions& options,
            StepProgress& progress)
      : plan_(plan),
        fs_(fs),
        options_(options),
        progress_(progress),
        missing_bytes_(plan.data_bytes()) {}

  absl::Status Run() {
    ODMOE_RETURN_IF_ERROR(fs_.CreateDirectories(FolderOf(plan_.journal_path)));
    for (const std::string& folder : plan_.folders) {
      ODMOE_RETURN_IF_ERROR(fs_.CreateDirectories(folder));
    }
    ODMOE_ASSIGN_OR_RETURN(journal_, Journal::Open(fs_, plan_));
    ODMOE_RETURN_IF_ERROR(TakeUp());
    if (content_.naming) {
      progress_.Resume(missing_bytes_);
    } else {
      ODMOE_RETURN_IF_ERROR(WriteItems());
    }
    return NameFiles(plan_, Hashes(), fs_, *journal_);
  }

  // Of the whole output, once Run is done.
  std::string Digest() const {
    FileHash digest;
    const std::vector<uint64_t> hashes = Hashes();
    size_t next = 0;
    for (const OutputFile& file : plan_.files) {
      digest.Add(absl::StrCat(file.bytes, "\n"));
      if (file.header != nullptr) digest.Add(*file.header);
      for (const OutputItem& item : file.items) {
        digest.Add(absl::StrCat(item.offset, " ", hashes[next++], "\n"));
      }
    }
    return absl::StrFormat("%016x", digest.value());
  }

  uint64_t missing_bytes() const { return missing_bytes_.load(); }

 private:
  struct TaskItem {
    uint32_t number;
    uint32_t file;
    const OutputItem* item;
  };
  // What a worker takes as one: an item, or those of a group that are not done.
  struct Task {
    std::vector<TaskItem> items;  // of a group: as there
    const OutputGroup* group = nullptr;
  };
  // An item a worker is at.
  struct OpenItem {
    const TaskItem* task;
    std::shared_ptr<WritableFile> file;
    uint64_t known = 0;  // bytes that are there
    Xxh3 hash;           // of those
    bool whole = false;
  };

  std::vector<uint64_t> Hashes() const {
    std::vector<uint64_t> hashes;
    for (const ItemRecord& item : content_.items) hashes.push_back(item.hash);
    return hashes;
  }

  // Begins a new journal or goes on with the one that is there.
  absl::Status TakeUp() {
    auto content = ReadJournal(fs_, plan_);
    const bool unusable = !content.ok() && !absl::IsNotFound(content.status());
    if (unusable && options_.earlier == EarlierWork::kGoOn) return content.status();
    if (!content.ok() || options_.earlier == EarlierWork::kDrop) return BeginAnew();
    content_ = *std::move(content);
    const std::vector<uint32_t> missing = DropMissingFiles(plan_, fs_, content_);
    const bool finished = std::all_of(
        content_.items.begin(), content_.items.end(),
        [](const ItemRecord& item) { return item.state == ItemRecord::State::kSynced; });
    // Someone removed what was finished: there is nothing to go on with.
    if (content_.naming && !finished) return BeginAnew();
    ODMOE_RETURN_IF_ERROR(journal_->GoOn(content_.records));
    for (uint32_t file : missing) ODMOE_RETURN_IF_ERROR(journal_->AddEmptied(file));
    // Before any of them is made anew, with the right length and nothing in it.
    return missing.empty() ? absl::OkStatus() : journal_->Sync();
  }

  absl::Status BeginAnew() {
    content_ = {};
    content_.items.resize(plan_.item_count());
    ODMOE_RETURN_IF_ERROR(RemovePartialFiles(plan_, fs_));
    ODMOE_RETURN_IF_ERROR(journal_->Begin(plan_.fingerprint));
    return journal_->Sync();
  }

  // A group stands where its first item would.
  std::vector<Task> ListTasks() {
    std::vector<const OutputGroup*> group_of(content_.items.size(), nullptr);
    for (const OutputGroup& group : plan_.groups) {
      for (const uint32_t item : group.items) group_of[item] = &group;
    }
    std::vector<Task> tasks;
    absl::flat_hash_map<const OutputGroup*, size_t> task_of;
    uint32_t number = 0;
    uint64_t resumed = 0;
    for (size_t file = 0; file < plan_.files.size(); ++file) {
      for (const OutputItem& item : plan_.files[file].items) {
        const TaskItem made{number, static_cast<uint32_t>(file), &item};
        const OutputGroup* group = group_of[number];
        if (content_.items[number++].state == ItemRecord::State::kSynced) {
          resumed += item.bytes();
          continue;
        }
        const bool first = group == nullptr || task_of.try_emplace(group, tasks.size()).second;
        if (first) tasks.push_back({.group = group});
        tasks[group == nullptr ? tasks.size() - 1 : task_of.at(group)].items.push_back(made);
      }
    }
    progress_.Resume(resumed);
    missing_bytes_ -= resumed;
    return tasks;
  }

  absl::Status WriteItems() {
    const std::vector<Task> tasks = ListTasks();
    PartialFiles files(plan_, fs_, content_.items);
    SyncQueue queue(fs_, FolderOf(plan_.journal_path), *journal_);
    std::vector<std::thread> workers;
    const int count = WorkerCount(options_.concurrency, tasks.size());
    for (int i = 0; i < count; ++i) {
      workers.emplace_back([&] { Stop(Work(tasks, files, queue)); });
    }
    for (std::thread& worker : workers) worker.join();
    ODMOE_RETURN_IF_ERROR(status());
    ODMOE_RETURN_IF_ERROR(queue.Finish());
    return files.WriteEmptyOnes();
  }

  // One worker: takes tasks in order until there are none left, or another one failed.
  absl::Status Work(const std::vector<Task>& tasks, PartialFiles& files, SyncQueue& queue) {
    ODMOE_ASSIGN_OR_RETURN(ItemWriter writer,
                           ItemWriter::Create(progress_, options_.piece_bytes));
    while (!stopped_.load(std::memory_order_relaxed)) {
      const size_t next = next_task_.fetch_add(1, std::memory_order_relaxed);
      if (next >= tasks.size()) return absl::OkStatus();
      ODMOE_RETURN_IF_ERROR(Do(tasks[next], writer, files, queue));
    }
    return absl::OkStatus();
  }

  absl::Status Do(const Task& task, ItemWriter& writer, PartialFiles& files, SyncQueue& queue) {
    ODMOE_RETURN_IF_ERROR(progress_.CheckCancelled());
    std::vector<OpenItem> items;
    bool missing = false;
    for (const TaskItem& item : task.items) {
      ODMOE_ASSIGN_OR_RETURN(items.emplace_back(), Open(item, writer, files));
      missing |= !items.back().whole;
    }
    if (missing) {
      ODMOE_RETURN_IF_ERROR(task.group == nullptr ? writer.Write(InHand(items[0], queue))
                                                  : WriteGroup(task, items, writer, queue));
    }
    for (OpenItem& item : items) {
      const uint64_t bytes = item.task->item->bytes();
      content_.items[item.task->number].hash = item.hash.Digest();
      // Of others, the last piece was recorded as it was written.
      if (item.known == bytes) {
        ODMOE_RETURN_IF_ERROR(
            queue.Written(item.file, bytes, item.task->number, item.hash.Digest()));
      }
      missing_bytes_ -= bytes;
      files.ItemDone(item.task->file);
    }
    return absl::OkStatus();
  }

  absl::Status WriteGroup(const Task& task, std::vector<OpenItem>& items, ItemWriter& writer,
                          SyncQueue& queue) {
    const std::vector<uint32_t>& numbers = task.group->items;
    std::vector<ItemInHand> hands(numbers.size());
    for (OpenItem& item : items) {
      const auto place = std::find(numbers.begin(), numbers.end(), item.task->number);
      if (!item.whole) hands[static_cast<size_t>(place - numbers.begin())] = InHand(item, queue);
    }
    return writer.WriteTogether(hands, task.group->make);
  }

  ItemInHand InHand(OpenItem& item, SyncQueue& queue) {
    return {.item = item.task->item,
            .begun = item.known,
            .hash = &item.hash,
            .sink = [this, &item, &queue](uint64_t done, absl::Span<const std::byte> piece,
                                          uint64_t hash) {
              return WritePiece(item, done, piece, hash, queue);
            }};
  }

  // Under a lock, so that never more than one piece is in its file without a record.
  absl::Status WritePiece(const OpenItem& item, uint64_t done, absl::Span<const std::byte> piece,
                          uint64_t hash, SyncQueue& queue) {
    absl::MutexLock lock(&piece_mutex_);
    ODMOE_RETURN_IF_ERROR(item.file->WriteAt(item.task->item->offset + done, piece));
    const uint64_t bytes = item.task->item->bytes(), now = done + piece.size();
    if (now < bytes) return journal_->AddBegun(item.task->number, now, hash);
    return queue.Written(item.file, bytes, item.task->number, hash);
  }

  // What an earlier run recorded of the item, and did not see reach the disk, counts where it is in
  // the file.
  absl::StatusOr<OpenItem> Open(const TaskItem& task, ItemWriter& writer, PartialFiles& files) {
    OpenItem item{.task = &task};
    ODMOE_ASSIGN_OR_RETURN(item.file, files.Use(task.file));
    const ItemRecord& record = content_.items[task.number];
    if (record.state == ItemRecord::State::kMissing) return item;
    const bool whole = record.state == ItemRecord::State::kWritten;
    const uint64_t bytes = whole ? task.item->bytes() : record.begun_bytes;
    const auto file = fs_.OpenForRead(PartialPath(plan_.files[task.file].path));
    if (file.ok()) {
      const auto matches = writer.Matches(*task.item, **file, bytes, record.hash, item.hash);
      if (absl::IsCancelled(matches.status())) return matches.status();
      item.whole = whole && matches.value_or(false);
      item.known = matches.value_or(false) ? bytes : 0;
    }
    if (item.known == 0) item.hash.Reset();  // what cannot be read is written again
    return item;
  }

  // The first failure stops all workers and is the run's.
  void Stop(absl::Status status) {
    if (status.ok()) return;
    stopped_.store(true, std::memory_order_relaxed);
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = std::move(status);
  }

  absl::Status status() {
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) return progress_.CheckCancelled();
    return status_;
  }

  const OutputPlan& plan_;
  FileSystem& fs_;
  const WriteOptions options_;
  StepProgress& progress_;
  std::unique_ptr<Journal> journal_;
  JournalContent content_;  // while workers run, each item belongs to the one that has its task
  std::atomic<uint64_t> missing_bytes_;
  std::atomic<size_t> next_task_ = 0;
  std::atomic<bool> stopped_ = false;
  absl::Mutex piece_mutex_;  // held while a piece is written and recorded
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::Status DiskFull(const absl::Status& status, const OutputPlan& plan, FileSystem& fs,
                      uint64_t missing_bytes) {
  const auto free_bytes = fs.FreeBytes(FolderOf(plan.journal_path));
  return absl::ResourceExhaustedError(absl::StrCat(
      status.message(), " (", FormatBytes(missing_bytes), " (", missing_bytes,
      " bytes) still needed for ", plan.destination,
      free_bytes.ok() ? absl::StrCat(", ", FormatBytes(*free_bytes), " (", *free_bytes,
                                     " bytes) free")
                      : "",
      "; once there is room, the same conversion goes on from here)"));
}

}  // namespace

EarlierWork ToEarlierWork(bool drop, bool replace_other) {
  return drop            ? EarlierWork::kDrop
         : replace_other ? EarlierWork::kReplaceOther
                         : EarlierWork::kGoOn;
}

absl::StatusOr<UnfinishedOutput> FindUnfinishedOutput(const OutputPlan& plan, FileSystem& fs,
                                                      EarlierWork earlier) {
  if (earlier == EarlierWork::kDrop) return UnfinishedOutput{};
  auto content = ReadJournal(fs, plan);
  if (absl::IsNotFound(content.status())) return UnfinishedOutput{};
  if (!content.ok() && earlier == EarlierWork::kReplaceOther) return UnfinishedOutput{};
  ODMOE_RETURN_IF_ERROR(content.status());
  DropMissingFiles(plan, fs, *content);
  UnfinishedOutput result;
  size_t number = 0;
  for (const OutputFile& file : plan.files) {
    const size_t first = number;
    for (const OutputItem& item : file.items) {
      const ItemRecord& record = content->items[number++];
      if (record.state == ItemRecord::State::kMissing) continue;
      const bool begun = record.state == ItemRecord::State::kBegun;
      result.done_bytes += begun ? record.begun_bytes : item.bytes();
    }
    for (const std::string& path : {PartialPath(file.path), file.path}) {
      // A file under its own name is an earlier output's, unless this one's get their names
      // already.
      if (path == file.path && !content->naming) continue;
      const auto there = fs.OpenForRead(path);
      if (there.ok() && (content->naming || number > first)) {
        result.disk_bytes += (*there)->disk_bytes();
        break;
      }
    }
  }
  return result;
}

void RemoveUnfinishedOutput(const OutputPlan& plan, FileSystem& fs) {
  // What cannot be removed reads as nothing complete, and the next run writes over it.
  RemovePartialFiles(plan, fs).IgnoreError();
  fs.Remove(plan.journal_path).IgnoreError();
  for (auto folder = plan.folders.rbegin(); folder != plan.folders.rend(); ++folder) {
    fs.Remove(*folder).IgnoreError();
  }
}

absl::Status WriteOutput(const OutputPlan& plan, FileSystem& fs, const WriteOptions& options,
                         StepProgress& progress, std::string* digest) {
  OutputRun run(plan, fs, options, progress);
  const absl::Status status = run.Run();
  if (absl::IsCancelled(status) && !progress.keeps_work()) RemoveUnfinishedOutput(plan, fs);
  if (absl::IsResourceExhausted(status)) return DiskFull(status, plan, fs, run.missing_bytes());
  if (status.ok() && digest != nullptr) *digest = run.Digest();
  return status;
}

}  // namespace odmoe
