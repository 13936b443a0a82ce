#include "services/conversion/service/transfer_handlers.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "absl/strings/str_cat.h"
#include "services/conversion/transfer/served_files.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/core/codec/number_codec.h"
#include "services/core/io/file_hash.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;

constexpr size_t kMaxChunkBytes = 4 << 20;
constexpr size_t kChunkBytes = 1 << 20;  // of a download
// What a reply may hold, well below the clients' message limit.
constexpr size_t kMaxListedBytes = 16 << 20;

absl::Status WrongOrder(absl::string_view expected) {
  return InvalidField("part", absl::StrCat("is not ", expected));
}

void Fill(const UploadedFile& from, v1::UploadedFile& to) {
  to.set_name(ReplaceInvalidUtf8(from.name));
  to.set_kept_bytes(SignedOf(from.kept_bytes));
  to.set_complete(from.complete);
}

absl::Status CheckHeader(const v1::UploadFileRequest& request) {
  if (!request.has_header()) return WrongOrder("a header, which comes first");
  const v1::UploadHeader& header = request.header();
  if (header.size_bytes() < 0) return InvalidField("header.size_bytes", "is negative");
  if (header.offset() < 0) return InvalidField("header.offset", "is negative");
  return absl::OkStatus();
}

absl::Status CheckChunk(const v1::UploadChunk& chunk) {
  if (!chunk.data().empty() && chunk.data().size() <= kMaxChunkBytes) return absl::OkStatus();
  return InvalidField("chunk.data", absl::StrCat("has ", chunk.data().size(),
                                                 " bytes, expected 1 to ", kMaxChunkBytes));
}

// Fills `data` from the file; a file that shrinks meanwhile is no longer what its header said.
absl::Status ReadExactly(const OwnedFd& file, uint64_t offset, std::string& data,
                         const std::string& path) {
  for (size_t done = 0; done < data.size();) {
    const ssize_t count =
        ::pread(file.get(), data.data() + done, data.size() - done, off_t(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", path));
    if (count == 0) {
      return absl::DataLossError(absl::StrCat(path, " ends at offset ", offset + done,
                                              ": it has changed meanwhile"));
    }
    done += size_t(count);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status TransferHandlers::CheckSpool() const {
  if (spool_ != nullptr) return absl::OkStatus();
  return absl::UnimplementedError(
      "this service takes no uploads; it was started without --spool");
}

absl::Status TransferHandlers::UploadFile(StreamReader<v1::UploadFileRequest>& in,
                                          v1::UploadFileResponse& response) {
  ODMOE_RETURN_IF_ERROR(CheckSpool());
  v1::UploadFileRequest request;
  if (!in.Read(request)) return WrongOrder("there");
  ODMOE_RETURN_IF_ERROR(CheckHeader(request));
  const v1::UploadHeader header = request.header();
  ODMOE_ASSIGN_OR_RETURN(
      const std::unique_ptr<Spool::Writer> writer,
      spool_->Write(header.upload_id(), header.name(), uint64_t(header.size_bytes()),
                    uint64_t(header.offset()), header.prefix_hash()));
  while (in.Read(request)) {
    if (request.has_trailer()) {
      ODMOE_ASSIGN_OR_RETURN(const UploadedFile file, writer->Finish(request.trailer().hash()));
      Fill(file, *response.mutable_file());
      return absl::OkStatus();
    }
    if (!request.has_chunk()) return WrongOrder("a chunk or the trailer");
    ODMOE_RETURN_IF_ERROR(CheckChunk(request.chunk()));
    ODMOE_RETURN_IF_ERROR(writer->Append(request.chunk().data(), request.chunk().hash()));
  }
  return absl::CancelledError("the stream ended without a trailer; what came is kept");
}

absl::Status TransferHandlers::GetUpload(const v1::GetUploadRequest& request,
                                         v1::GetUploadResponse& response) {
  ODMOE_RETURN_IF_ERROR(CheckSpool());
  ODMOE_ASSIGN_OR_RETURN(const Upload upload, spool_->Get(request.upload_id(), request.name()));
  response.set_directory_path(upload.directory);
  for (const UploadedFile& file : upload.files) Fill(file, *response.add_files());
  *response.mutable_expire_time() = TimestampOf(upload.expires);
  if (response.ByteSizeLong() <= kMaxListedBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError("the upload has too many files to list");
}

absl::Status TransferHandlers::DeleteUpload(const v1::DeleteUploadRequest& request) {
  ODMOE_RETURN_IF_ERROR(CheckSpool());
  return spool_->Delete(request.upload_id());
}

absl::Status TransferHandlers::ListFiles(const v1::ListFilesRequest& request,
                                         v1::ListFilesResponse& response) {
  ODMOE_ASSIGN_OR_RETURN(const std::vector<RemoteFile> files,
                         ListServedFiles(roots_, request.path()));
  for (const RemoteFile& file : files) {
    v1::RemoteFile& to = *response.add_files();
    to.set_name(ReplaceInvalidUtf8(file.name));
    to.set_size_bytes(SignedOf(file.size_bytes));
  }
  if (response.ByteSizeLong() <= kMaxListedBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError("there are too many files to list");
}

absl::Status TransferHandlers::DownloadFile(const v1::DownloadFileRequest& request,
                                            StreamWriter<v1::DownloadFileResponse>& out) {
  if (request.offset() < 0) return InvalidField("offset", "is negative");
  ODMOE_ASSIGN_OR_RETURN(const ServedFile served, OpenServedFile(roots_, request.path()));
  uint64_t offset = uint64_t(request.offset());
  if (offset > served.size_bytes) {
    return absl::OutOfRangeError(absl::StrCat(request.path(), ": offset ", offset,
                                              " is past its ", served.size_bytes, " bytes"));
  }
  FileHash hash;
  ODMOE_RETURN_IF_ERROR(hash.AddFile(served.file.get(), offset, request.path()));
  if (offset > 0 && hash.value() != request.prefix_hash()) {
    return absl::FailedPreconditionError(absl::StrCat(
        request.path(), ": its first ", offset, " bytes are not what was fetched before"));
  }
  v1::DownloadFileResponse response;
  response.mutable_header()->set_size_bytes(SignedOf(served.size_bytes));
  const auto gone = [] { return absl::CancelledError("the client is gone"); };
  if (!out.Write(response)) return gone();
  while (offset < served.size_bytes) {
    std::string& data = *response.mutable_chunk()->mutable_data();
    data.resize(std::min<uint64_t>(kChunkBytes, served.size_bytes - offset));
    ODMOE_RETURN_IF_ERROR(ReadExactly(served.file, offset, data, request.path()));
    hash.Add(data);
    response.mutable_chunk()->set_hash(FileHash::Of(data));
    offset += data.size();
    if (!out.Write(response)) return gone();
  }
  response.mutable_trailer()->set_hash(hash.value());
  return out.Write(response) ? absl::OkStatus() : gone();
}

}  // namespace odmoe
