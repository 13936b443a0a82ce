// Files to and from the host of a conversion service.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/core/base/cancellation.h"
#include "services/core/jobs/file_transfer.h"

namespace odmoe {

struct TransferOptions {
  const Cancellation* cancellation = nullptr;  // may be null; what came so far is kept
  // Bytes of the file that are there, those of before included; on the calling thread.
  std::function<void(uint64_t done_bytes)> on_progress = nullptr;
  // The connection broke and is tried again; told once a break.
  std::function<void(const absl::Status&)> on_interrupted = nullptr;
};

// Both transfers go on from what an earlier attempt left, in this process or before, after
// comparing its hash; a connection that breaks is taken up again for half a minute without
// progress. Each chunk and each whole file is hashed. Thread-safe. UNAVAILABLE: no service there;
// and the service's errors.
class RemoteFiles {
 public:
  virtual ~RemoteFiles() = default;

  // With all its files, or the one of that name. NOT_FOUND: no such upload. UNIMPLEMENTED: the
  // service takes none.
  virtual absl::StatusOr<Upload> GetUpload(const std::string& upload_id,
                                           const std::string& name = "") = 0;
  virtual absl::Status DeleteUpload(const std::string& upload_id) = 0;
  virtual absl::StatusOr<std::vector<RemoteFile>> ListFiles(const std::string& path) = 0;

  // Sends `local_path` as the upload's file `name`. DATA_LOSS: it changed while it was sent.
  virtual absl::Status UploadFile(const std::string& upload_id, const std::string& name,
                                  const std::string& local_path,
                                  const TransferOptions& options) = 0;
  // Fetches `path` to `local_path`, by way of LOCAL_PATH.partial, synced and renamed; its folder
  // exists. An existing file is replaced.
  virtual absl::Status DownloadFile(const std::string& path, const std::string& local_path,
                                    const TransferOptions& options) = 0;
};

// See ConnectJobQueue for `endpoint`.
absl::StatusOr<std::unique_ptr<RemoteFiles>> ConnectRemoteFiles(const std::string& endpoint);

}  // namespace odmoe
