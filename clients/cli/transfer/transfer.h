// Files and folders to and from a conversion service's host, with a progress bar.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/cli/console/console.h"
#include "clients/cpp/remote_files.h"
#include "services/core/base/cancellation.h"

namespace odmoe {

struct TransferResult {
  std::string path;    // of what was made: on the service's host for an upload
  uint64_t bytes = 0;  // of all files
  int64_t files = 0;
};

// What a transfer shows on, and who may stop it.
struct TransferView {
  Console& console;
  bool quiet = false;
  const Cancellation* cancellation = nullptr;
};

// The same for the same files: made of this host's name, the paths, and names, sizes and times of
// all files at or below them. So a command that is given again goes on with its upload, and one
// whose files have changed begins another.
absl::StatusOr<std::string> UploadIdOf(const std::vector<std::string>& local_paths);

// Sends the file or folder `local_path` into the upload, as `folder`/<its name>. Of a folder, what
// begins with "." or ends in ".partial" is left out, and links to files are followed. Files that
// are there already are not sent again. NOT_FOUND; INVALID_ARGUMENT: nothing to send; CANCELLED.
absl::StatusOr<TransferResult> UploadTree(RemoteFiles& remote, const std::string& upload_id,
                                          const std::string& folder,
                                          const std::string& local_path, const TransferView& view);

// Fetches the file or folder `path` of the service's host to `local_path`. Files that are there
// already are compared by their hash, and fetched again where they differ. A model directory's
// registry comes last, so that it is not complete before it is.
absl::StatusOr<TransferResult> DownloadTree(RemoteFiles& remote, const std::string& path,
                                            const std::string& local_path,
                                            const TransferView& view);

}  // namespace odmoe
