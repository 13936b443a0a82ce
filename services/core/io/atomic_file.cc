#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/file.h"

namespace odmoe {
namespace {

std::string PartialPath(const std::string& path) { return path + ".partial"; }

std::string FolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

}  // namespace

absl::StatusOr<std::string> ReadWholeFile(FileSystem& fs, const std::string& path,
                                          uint64_t limit_bytes) {
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file, fs.OpenForRead(path));
  if (file->size() > limit_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": ", file->size(), " bytes, more than the ", limit_bytes, " allowed here"));
  }
  std::string text(file->size(), '\0');
  ODMOE_RETURN_IF_ERROR(file->ReadAt(
      0, absl::MakeSpan(reinterpret_cast<std::byte*>(text.data()), text.size())));
  return text;
}

AtomicFile::AtomicFile(FileSystem& fs, std::string path, std::unique_ptr<WritableFile> file)
    : fs_(fs), path_(std::move(path)), file_(std::move(file)) {}

absl::StatusOr<std::unique_ptr<AtomicFile>> AtomicFile::Create(FileSystem& fs,
                                                               const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs.OpenForWrite(PartialPath(path)));
  return std::unique_ptr<AtomicFile>(new AtomicFile(fs, path, std::move(file)));
}

AtomicFile::~AtomicFile() {
  if (committed_) return;
  file_.reset();
  // The failure that brought us here has been reported; a leftover is overwritten by the next run.
  fs_.Remove(PartialPath(path_)).IgnoreError();
}

absl::Status AtomicFile::Commit() {
  ODMOE_RETURN_IF_ERROR(CommitUnsynced());
  return fs_.SyncDirectory(FolderOf(path_));
}

absl::Status AtomicFile::CommitUnsynced() {
  ODMOE_RETURN_IF_ERROR(file_->Sync());
  ODMOE_RETURN_IF_ERROR(file_->Close());
  ODMOE_RETURN_IF_ERROR(fs_.Rename(PartialPath(path_), path_));
  committed_ = true;
  return absl::OkStatus();
}

}  // namespace odmoe
