// The files a conversion has written so far, so that a failed one leaves none of them.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/core/io/file.h"

namespace odmoe {

// Remembers outputs in order; destroyed without Keep, it removes them, the newest first. Not
// thread-safe.
class OutputFiles {
 public:
  explicit OutputFiles(FileSystem& fs) : fs_(fs) {}
  ~OutputFiles();
  OutputFiles(const OutputFiles&) = delete;
  OutputFiles& operator=(const OutputFiles&) = delete;

  // Creates a folder; removed again only if it is empty by then.
  absl::Status CreateFolder(const std::string& path);
  // Takes a written file, to be committed as `path` without syncing its folder. The disk gets some
  // time to write it while the next ones are made: the error may be an earlier file's.
  absl::Status Commit(std::unique_ptr<AtomicFile> file, std::string path);
  // Commits all that were taken and are not yet.
  absl::Status CommitAll();
  void Keep() { paths_.clear(); }

 private:
  FileSystem& fs_;
  std::vector<std::string> paths_;
  std::deque<std::pair<std::unique_ptr<AtomicFile>, std::string>> pending_;
};

}  // namespace odmoe
