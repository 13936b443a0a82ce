#include "converter/output_files.h"

#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// Files that are synced together. The first sync of a batch makes the file system commit its journal
// for all of them, and the others find little to do; one by one, each pays for a commit.
constexpr size_t kMaxPending = 64;

}  // namespace

OutputFiles::~OutputFiles() {
  pending_.clear();  // their partial files, before the folders they lie in
  for (auto path = paths_.rbegin(); path != paths_.rend(); ++path) {
    // What stays behind is not complete and the next run overwrites it.
    fs_.Remove(*path).IgnoreError();
  }
}

absl::Status OutputFiles::CreateFolder(const std::string& path) {
  ODMOE_RETURN_IF_ERROR(fs_.CreateDirectories(path));
  paths_.push_back(path);
  return absl::OkStatus();
}

absl::Status OutputFiles::Commit(std::unique_ptr<AtomicFile> file, std::string path) {
  file->file().StartSync();
  pending_.emplace_back(std::move(file), std::move(path));
  return pending_.size() < kMaxPending ? absl::OkStatus() : CommitAll();
}

absl::Status OutputFiles::CommitAll() {
  while (!pending_.empty()) {
    auto [file, path] = std::move(pending_.front());
    pending_.pop_front();
    ODMOE_RETURN_IF_ERROR(file->CommitUnsynced());
    paths_.push_back(std::move(path));
  }
  return absl::OkStatus();
}

}  // namespace odmoe
