#include "converter/output/name_files.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "converter/output/partial_files.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

absl::Status WriteText(const OutputText& text, FileSystem& fs) {
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file,
                         fs.OpenForWrite(PartialPath(text.path)));
  ODMOE_RETURN_IF_ERROR(file->Append(text.text));
  return file->Close();
}

absl::Status SyncFolders(const std::vector<std::string>& paths, FileSystem& fs) {
  std::set<std::string> folders;
  for (const std::string& path : paths) folders.insert(FolderOf(path));
  for (const std::string& folder : folders) ODMOE_RETURN_IF_ERROR(fs.SyncDirectory(folder));
  return absl::OkStatus();
}

// A file that has its name since an interrupted run has no partial file any more.
absl::Status GiveName(const std::string& path, FileSystem& fs) {
  const absl::Status renamed = fs.Rename(PartialPath(path), path);
  if (absl::IsNotFound(renamed) && fs.OpenForRead(path).ok()) return absl::OkStatus();
  return renamed;
}

// The completing file of an output that was here before must not be seen among the new files.
absl::Status RemoveOldCompletingFile(const std::string& path, FileSystem& fs) {
  // No partial file: the one that is there is the new one, of a run that was all but done.
  if (!fs.OpenForRead(PartialPath(path)).ok()) return absl::OkStatus();
  const absl::Status removed = fs.Remove(path);
  if (absl::IsNotFound(removed)) return absl::OkStatus();
  ODMOE_RETURN_IF_ERROR(removed);
  return fs.SyncDirectory(FolderOf(path));
}

}  // namespace

absl::Status NameFiles(const OutputPlan& plan, absl::Span<const uint64_t> hashes, FileSystem& fs,
                       Journal& journal) {
  std::vector<std::string> paths;  // the completing one last
  for (auto file = plan.files.rbegin(); file != plan.files.rend(); ++file) {
    paths.push_back(file->path);
  }
  if (plan.texts) {
    ODMOE_ASSIGN_OR_RETURN(const std::vector<OutputText> texts, plan.texts(hashes));
    for (const OutputText& text : texts) {
      ODMOE_RETURN_IF_ERROR(WriteText(text, fs));
      paths.push_back(text.path);
    }
  }
  if (paths.empty())
    return absl::InternalError(absl::StrCat(plan.destination, ": nothing to write"));
  // The texts, and the names of all partial files.
  ODMOE_RETURN_IF_ERROR(paths.size() > 1 ? fs.SyncFileSystem(FolderOf(plan.journal_path))
                                         : SyncFolders(paths, fs));
  ODMOE_RETURN_IF_ERROR(journal.AddNaming());
  ODMOE_RETURN_IF_ERROR(journal.Sync());
  const std::string completing = paths.back();
  paths.pop_back();
  if (!paths.empty()) {
    ODMOE_RETURN_IF_ERROR(RemoveOldCompletingFile(completing, fs));
    for (const std::string& path : paths) ODMOE_RETURN_IF_ERROR(GiveName(path, fs));
    ODMOE_RETURN_IF_ERROR(SyncFolders(paths, fs));
  }
  ODMOE_RETURN_IF_ERROR(GiveName(completing, fs));
  ODMOE_RETURN_IF_ERROR(SyncFolders({completing}, fs));
  return fs.Remove(plan.journal_path);
}

}  // namespace odmoe
