// What the conversion service does for files of clients on other hosts.
#pragma once

#include "absl/status/status.h"
#include "odmoe/conversion/v1/conversion_service.pb.h"
#include "services/conversion/transfer/spool.h"
#include "services/core/io/path_roots.h"
#include "services/core/rpc/client_stream.h"
#include "services/core/rpc/server_stream.h"

namespace odmoe {

// Thread-safe. Without a spool, uploads are UNIMPLEMENTED. All outlive it.
class TransferHandlers {
 public:
  TransferHandlers(const PathRoots& roots, Spool* spool) : roots_(roots), spool_(spool) {}

  absl::Status UploadFile(StreamReader<conversion::v1::UploadFileRequest>& in,
                          conversion::v1::UploadFileResponse& response);
  absl::Status GetUpload(const conversion::v1::GetUploadRequest& request,
                         conversion::v1::GetUploadResponse& response);
  absl::Status DeleteUpload(const conversion::v1::DeleteUploadRequest& request);
  absl::Status ListFiles(const conversion::v1::ListFilesRequest& request,
                         conversion::v1::ListFilesResponse& response);
  absl::Status DownloadFile(const conversion::v1::DownloadFileRequest& request,
                            StreamWriter<conversion::v1::DownloadFileResponse>& out);

 private:
  absl::Status CheckSpool() const;

  const PathRoots& roots_;
  Spool* const spool_;
};

}  // namespace odmoe
