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
#include "absl/synchronization/mutex.h"
#include "converter/output/item_writer.h"
#include "converter/output/journal.h"
#include "converter/output/name_files.h"
#include "converter/output/partial_files.h"
#include "converter/output/sync_queue.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

int WorkerCount(int asked, size_t items) {
  if (asked <= 0) {
    asked = std::min<int>(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())),
                          kMaxDefaultWorkers);
  }
  return static_cast<int>(std::clamp<size_t>(items, 1, static_cast<size_t>(std::min(asked, kMaxWorkers))));
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
    if (!recorded || IsFileOfSize(fs, PartialPath(file.path), file.bytes)) continue;
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
    std::vector<uint64_t> hashes;
    for (const ItemRecord& item : content_.items) hashes.push_back(item.hash);
    return NameFiles(plan_, hashes, fs_, *journal_);
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

  // Begins a new journal or goes on with the one that is there.
  absl::Status TakeUp() {
    auto content = ReadJournal(fs_, plan_);
    const bool unusable = !content.ok() && !absl::IsNotFound(content.status());
    if (unusable && !options_.restart) return content.status();
    if (!content.ok() || options_.restart) return BeginAnew();
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
    ODMOE_ASSIGN_OR_RETURN(ItemWriter writer, ItemWriter::Create(progress_));
    while (!stopped_.load(std::memory_order_relaxed)) {
      const size_t next = next_task_.fetch_add(1, std::memory_order_relaxed);
      if (next >= tasks.size()) return absl::OkStatus();
      ODMOE_RETURN_IF_ERROR(Do(tasks[next], writer, files, queue));
    }
    return absl::OkStatus();
  }

  absl::Status Do(const Task& task, ItemWriter& writer, PartialFiles& files, SyncQueue& queue) {
    ODMOE_RETURN_IF_ERROR(progress_.CheckCancelled());
    std::vector<std::shared_ptr<WritableFile>> opened;
    bool missing = false;
    for (const TaskItem& item : task.items) {
      ODMOE_ASSIGN_OR_RETURN(opened.emplace_back(), files.Use(item.file));
      ItemRecord& record = content_.items[item.number];
      if (record.state == ItemRecord::State::kWritten) {
        ODMOE_ASSIGN_OR_RETURN(const bool kept, IsThere(item, writer, record.hash));
        if (!kept) record.state = ItemRecord::State::kMissing;
      }
      missing |= record.state == ItemRecord::State::kMissing;
    }
    if (missing) {
      ODMOE_RETURN_IF_ERROR(task.group == nullptr ? WriteItem(task.items[0], writer, *opened[0])
                                                  : WriteGroup(task, writer, opened));
    }
    for (size_t i = 0; i < task.items.size(); ++i) {
      const TaskItem& item = task.items[i];
      const uint64_t bytes = item.item->bytes();
      ODMOE_RETURN_IF_ERROR(
          queue.Written(opened[i], bytes, item.number, content_.items[item.number].hash));
      missing_bytes_ -= bytes;
      files.ItemDone(item.file);
    }
    return absl::OkStatus();
  }

  absl::Status WriteItem(const TaskItem& item, ItemWriter& writer, WritableFile& file) {
    ODMOE_ASSIGN_OR_RETURN(content_.items[item.number].hash, writer.Write(*item.item, file));
    return absl::OkStatus();
  }

  absl::Status WriteGroup(const Task& task, ItemWriter& writer,
                          const std::vector<std::shared_ptr<WritableFile>>& opened) {
    std::vector<ItemWriter::Place> places(task.group->items.size());
    std::vector<const TaskItem*> written(places.size(), nullptr);
    for (size_t i = 0; i < task.items.size(); ++i) {
      const TaskItem& item = task.items[i];
      if (content_.items[item.number].state != ItemRecord::State::kMissing) continue;
      const auto& numbers = task.group->items;
      const size_t place = static_cast<size_t>(
          std::find(numbers.begin(), numbers.end(), item.number) - numbers.begin());
      places[place] = {item.item, opened[i].get()};
      written[place] = &item;
    }
    ODMOE_ASSIGN_OR_RETURN(const std::vector<uint64_t> hashes,
                           writer.WriteTogether(places, task.group->make));
    for (size_t i = 0; i < written.size(); ++i) {
      if (written[i] != nullptr) content_.items[written[i]->number].hash = hashes[i];
    }
    return absl::OkStatus();
  }

  // Whether the bytes an earlier run recorded, and did not see reach the disk, are in the file.
  absl::StatusOr<bool> IsThere(const TaskItem& task, ItemWriter& writer, uint64_t hash) {
    const auto file = fs_.OpenForRead(PartialPath(plan_.files[task.file].path));
    if (!file.ok()) return false;
    absl::StatusOr<bool> matches = writer.Matches(*task.item, **file, hash);
    if (matches.ok() || absl::IsCancelled(matches.status())) return matches;
    return false;  // what cannot be read is written again
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

absl::StatusOr<UnfinishedOutput> FindUnfinishedOutput(const OutputPlan& plan, FileSystem& fs) {
  auto content = ReadJournal(fs, plan);
  if (absl::IsNotFound(content.status())) return UnfinishedOutput{};
  ODMOE_RETURN_IF_ERROR(content.status());
  DropMissingFiles(plan, fs, *content);
  UnfinishedOutput result;
  size_t number = 0;
  for (const OutputFile& file : plan.files) {
    const size_t first = number;
    for (const OutputItem& item : file.items) {
      if (content->items[number++].state != ItemRecord::State::kMissing) {
        result.done_bytes += item.bytes();
      }
    }
    for (const std::string& path : {PartialPath(file.path), file.path}) {
      // A file under its own name is an earlier output's, unless this one's get their names already.
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
                         StepProgress& progress) {
  OutputRun run(plan, fs, options, progress);
  const absl::Status status = run.Run();
  if (absl::IsCancelled(status) && !progress.keeps_work()) RemoveUnfinishedOutput(plan, fs);
  if (absl::IsResourceExhausted(status)) return DiskFull(status, plan, fs, run.missing_bytes());
  return status;
}

}  // namespace odmoe
