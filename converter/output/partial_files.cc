#include "converter/output/partial_files.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// From here on a file's disk space is taken when it is made, in one stretch where there is one. The
// disk finds room for smaller ones as well when they are written, at less cost.
constexpr uint64_t kMinAllocatedBytes = 64 * kMiB;

// Writing its only item gives such a file its length.
bool EndsWithOnlyItem(const OutputFile& file) {
  return file.items.size() == 1 && file.items[0].bytes() > 0 &&
         file.items[0].offset + file.items[0].bytes() == file.bytes;
}

}  // namespace

std::string PartialPath(absl::string_view path) { return absl::StrCat(path, ".partial"); }

std::string FolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

bool IsFileOfSize(FileSystem& fs, const std::string& path, uint64_t bytes) {
  const auto file = fs.OpenForRead(path);
  return file.ok() && (*file)->size() == bytes;
}

PartialFiles::PartialFiles(const OutputPlan& plan, FileSystem& fs,
                           const std::vector<ItemRecord>& items)
    : plan_(plan), fs_(fs), entries_(plan.files.size()) {
  size_t number = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    absl::MutexLock lock(&entry.mutex);
    for (size_t item = 0; item < plan.files[i].items.size(); ++item, ++number) {
      if (items[number].state != ItemRecord::State::kMissing) entry.goes_on = true;
      if (items[number].state != ItemRecord::State::kSynced) ++entry.items_left;
    }
  }
}

absl::StatusOr<std::shared_ptr<WritableFile>> PartialFiles::Use(uint32_t file) {
  Entry& entry = entries_[file];
  absl::MutexLock lock(&entry.mutex);
  if (entry.open == nullptr) {
    ODMOE_ASSIGN_OR_RETURN(entry.open, Open(plan_.files[file], entry.goes_on));
  }
  return entry.open;
}

void PartialFiles::ItemDone(uint32_t file) {
  Entry& entry = entries_[file];
  absl::MutexLock lock(&entry.mutex);
  if (--entry.items_left == 0) entry.open.reset();
}

absl::StatusOr<std::shared_ptr<WritableFile>> PartialFiles::Open(const OutputFile& file,
                                                                 bool goes_on) {
  const std::string path = PartialPath(file.path);
  ODMOE_ASSIGN_OR_RETURN(std::shared_ptr<WritableFile> out,
                         goes_on ? fs_.OpenForUpdate(path) : fs_.OpenForWrite(path));
  if (!goes_on && file.bytes >= kMinAllocatedBytes) {
    ODMOE_RETURN_IF_ERROR(out->Allocate(file.bytes));
  } else if (!goes_on && !EndsWithOnlyItem(file)) {
    ODMOE_RETURN_IF_ERROR(out->Resize(file.bytes));
  }
  // Again where it goes on: no record says that it reached the disk.
  if (file.header != nullptr) {
    ODMOE_RETURN_IF_ERROR(out->WriteAt(
        0, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(file.header->data()),
                               file.header->size())));
  }
  return out;
}

absl::Status PartialFiles::WriteEmptyOnes() {
  for (const OutputFile& file : plan_.files) {
    if (!file.items.empty()) continue;
    ODMOE_ASSIGN_OR_RETURN(const std::shared_ptr<WritableFile> out, Open(file, false));
    ODMOE_RETURN_IF_ERROR(out->Sync());
    ODMOE_RETURN_IF_ERROR(out->Close());
  }
  return absl::OkStatus();
}

}  // namespace odmoe
