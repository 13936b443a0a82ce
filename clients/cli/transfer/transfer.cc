#include "clients/cli/transfer/transfer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/console/progress.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/file_hash.h"
#include "services/core/io/open_beneath.h"
#include "services/core/io/posix_error.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

struct LocalFile {
  std::string name;  // relative to what was named; of a file alone: ""
  std::string path;
  uint64_t size = 0;
  int64_t modified_ns = 0;
};

absl::StatusOr<LocalFile> Describe(const std::string& name, const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return PosixError(errno, "stat", path);
  return LocalFile{name, path, uint64_t(info.st_size),
                   int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

// By name. What is hidden is left out: a clone's .git has the model's bytes once more.
absl::StatusOr<std::vector<LocalFile>> ListLocal(const std::string& path) {
  std::error_code error;
  std::vector<LocalFile> files;
  if (fs::is_regular_file(path, error)) {
    ODMOE_ASSIGN_OR_RETURN(files.emplace_back(), Describe("", path));
    return files;
  }
  const std::string base = fs::path(path) / "";
  for (auto entry = fs::recursive_directory_iterator(path, error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code entry_error;
    if (absl::StartsWith(name, ".") || absl::EndsWith(name, ".partial")) {
      if (entry->is_directory(entry_error)) entry.disable_recursion_pending();
      continue;
    }
    if (!entry->is_regular_file(entry_error)) continue;
    ODMOE_ASSIGN_OR_RETURN(
        files.emplace_back(),
        Describe(entry->path().string().substr(base.size()), entry->path().string()));
  }
  if (error) return PosixError(error.value(), "list", path);
  if (files.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " has no files"));
  std::sort(files.begin(), files.end(),
            [](const LocalFile& a, const LocalFile& b) { return a.name < b.name; });
  return files;
}

std::string NameOf(const std::string& path) {
  fs::path name = fs::path(path).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  return name.filename().string();
}

// One bar over all files of a transfer.
class TreeProgress {
 public:
  TreeProgress(const char* step, uint64_t total_bytes, const TransferView& view)
      : view_(view), display_(view.console, view.quiet) {
    state_.step = step;
    state_.total_bytes = total_bytes;
  }

  // Options for the next file.
  TransferOptions NextFile(const std::string& name) {
    state_.item = name;
    TransferOptions options;
    options.cancellation = view_.cancellation;
    options.on_progress = [this](uint64_t done) { Show(before_ + done); };
    options.on_interrupted = [this](const absl::Status& status) {
      display_.Finish();
      if (!view_.quiet) {
        view_.console.ErrLine(absl::StrCat("reconnecting: ", status.message()));
      }
    };
    return options;
  }
  void FileDone(uint64_t bytes) {
    before_ += bytes;
    Show(before_);
  }
  void Finish() { display_.Finish(); }

 private:
  void Show(uint64_t done) {
    state_.done_bytes = done;
    display_.Update(state_);
  }

  const TransferView view_;
  ProgressDisplay display_;
  ProgressState state_;
  uint64_t before_ = 0;  // bytes of the files that are done
};

// A file that is here already is taken for the beginning of what is to be fetched, and so compared.
absl::Status TakeExisting(const std::string& path) {
  std::error_code error;
  const std::string partial = absl::StrCat(path, ".partial");
  if (!fs::is_regular_file(path, error) || fs::exists(partial, error)) return absl::OkStatus();
  fs::rename(path, partial, error);
  return error ? PosixError(error.value(), "rename", path) : absl::OkStatus();
}

// Names are the service's word: none may lead out of the folder.
absl::Status CheckListing(const std::vector<RemoteFile>& files, const std::string& path) {
  if (files.empty()) return absl::NotFoundError(absl::StrCat(path, " has no files"));
  if (files.size() == 1 && files[0].name.empty()) return absl::OkStatus();
  for (const RemoteFile& file : files) {
    ODMOE_RETURN_IF_ERROR(CheckRelativeName(file.name, "the service's file name"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> UploadIdOf(const std::vector<std::string>& local_paths) {
  char host[256] = "";
  ::gethostname(host, sizeof(host) - 1);
  FileHash hash;
  hash.Add(absl::StrCat(host, "\n", ::getuid(), "\n"));
  for (const std::string& path : local_paths) {
    ODMOE_ASSIGN_OR_RETURN(const std::vector<LocalFile> files, ListLocal(path));
    hash.Add(absl::StrCat(AbsolutePath(path), "\n"));
    for (const LocalFile& file : files) {
      hash.Add(absl::StrCat(file.name, "\n", file.size, " ", file.modified_ns, "\n"));
    }
  }
  return absl::StrFormat("%016x", hash.value());
}

absl::StatusOr<TransferResult> UploadTree(RemoteFiles& remote, const std::string& upload_id,
                                          const std::string& folder,
                                          const std::string& local_path,
                                          const TransferView& view) {
  ODMOE_ASSIGN_OR_RETURN(const std::vector<LocalFile> files, ListLocal(local_path));
  TransferResult result;
  for (const LocalFile& file : files) result.bytes += file.size;
  const std::string top = absl::StrCat(folder, "/", NameOf(AbsolutePath(local_path)));
  TreeProgress progress("upload", result.bytes, view);
  for (const LocalFile& file : files) {
    const std::string name = file.name.empty() ? top : absl::StrCat(top, "/", file.name);
    ODMOE_RETURN_IF_ERROR(
        remote.UploadFile(upload_id, name, file.path, progress.NextFile(file.name)));
    progress.FileDone(file.size);
    ++result.files;
  }
  progress.Finish();
  ODMOE_ASSIGN_OR_RETURN(const Upload upload, remote.GetUpload(upload_id));
  result.path = absl::StrCat(upload.directory, "/", top);
  return result;
}

absl::StatusOr<TransferResult> DownloadTree(RemoteFiles& remote, const std::string& path,
                                            const std::string& local_path,
                                            const TransferView& view) {
  ODMOE_ASSIGN_OR_RETURN(std::vector<RemoteFile> files, remote.ListFiles(path));
  ODMOE_RETURN_IF_ERROR(CheckListing(files, path));
  std::stable_partition(files.begin(), files.end(), [](const RemoteFile& file) {
    return !absl::EndsWith(file.name, "registry.json");
  });
  TransferResult result;
  result.path = local_path;
  for (const RemoteFile& file : files) result.bytes += file.size_bytes;
  TreeProgress progress("download", result.bytes, view);
  for (const RemoteFile& file : files) {
    const std::string suffix = file.name.empty() ? "" : absl::StrCat("/", file.name);
    const std::string local = absl::StrCat(local_path, suffix);
    std::error_code error;
    const fs::path folder = fs::path(AbsolutePath(local)).parent_path();
    fs::create_directories(folder, error);
    if (error) return PosixError(error.value(), "create", folder.string());
    ODMOE_RETURN_IF_ERROR(TakeExisting(local));
    ODMOE_RETURN_IF_ERROR(remote.DownloadFile(absl::StrCat(path, suffix), local,
                                              progress.NextFile(file.name)));
    progress.FileDone(file.size_bytes);
    ++result.files;
  }
  progress.Finish();
  return result;
}

}  // namespace odmoe
