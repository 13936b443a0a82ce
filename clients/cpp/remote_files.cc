#include "clients/cpp/remote_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/retry_patience.h"
#include "odmoe/conversion/v1/conversion_service.grpc.pb.h"
#include "services/core/base/status_macros.h"
#include "services/core/codec/number_codec.h"
#include "services/core/io/file_hash.h"
#include "services/core/io/owned_fd.h"
#include "services/core/io/posix_error.h"
#include "services/core/rpc/cancel_call.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;
namespace fs = std::filesystem;

constexpr absl::Duration kTransferCallTimeout = absl::Seconds(60);
constexpr size_t kChunkBytes = 1 << 20;

bool IsCancelled(const TransferOptions& options) {
  return options.cancellation != nullptr && options.cancellation->cancelled();
}

absl::StatusOr<OwnedFd> OpenFile(const std::string& path, int flags) {
  OwnedFd fd(::open(path.c_str(), flags | O_CLOEXEC, 0666));
  if (fd.get() < 0) return PosixError(errno, "open", path);
  return fd;
}

absl::StatusOr<uint64_t> SizeOf(const OwnedFd& fd, const std::string& path) {
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return PosixError(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  return uint64_t(info.st_size);
}

absl::Status WriteAll(const OwnedFd& fd, absl::string_view data, uint64_t offset,
                      const std::string& path) {
  for (size_t done = 0; done < data.size();) {
    const ssize_t count =
        ::pwrite(fd.get(), data.data() + done, data.size() - done, off_t(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return PosixError(errno, "write", path);
    done += size_t(count);
  }
  return absl::OkStatus();
}

// One transfer's attempts: how long to go on, and from where.
class Attempts {
 public:
  explicit Attempts(const TransferOptions& options)
      : options_(options), patience_(options.cancellation) {}

  // Bytes got through: patience starts anew.
  void Progress(uint64_t done_bytes) {
    patience_.Renew();
    if (options_.on_progress) options_.on_progress(done_bytes);
  }

  // Whether an attempt that ended with `status` is to be followed by another; waits before it.
  bool Again(const absl::Status& status) {
    // ABORTED: an attempt before this one has not yet been given up by the service.
    if (!absl::IsUnavailable(status) && !absl::IsAborted(status)) return false;
    if (patience_.exhausted()) return false;
    if (patience_.fresh() && options_.on_interrupted) options_.on_interrupted(status);
    patience_.Pause();
    return true;
  }

 private:
  const TransferOptions& options_;
  RetryPatience patience_;
};

class Files final : public RemoteFiles {
 public:
  explicit Files(std::shared_ptr<grpc::Channel> channel)
      : stub_(v1::ConversionService::NewStub(std::move(channel))) {}

  absl::StatusOr<Upload> GetUpload(const std::string& upload_id, const std::string& name) override {
    v1::GetUploadRequest request;
    request.set_upload_id(upload_id);
    request.set_name(name);
    v1::GetUploadResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ConversionService::Stub::GetUpload, request, response));
    Upload upload;
    upload.directory = response.directory_path();
    upload.expires = TimeOf(response.has_expire_time(), response.expire_time());
    for (const v1::UploadedFile& file : response.files()) {
      upload.files.push_back({file.name(), UnsignedOf(file.kept_bytes()), file.complete()});
    }
    return upload;
  }

  absl::Status DeleteUpload(const std::string& upload_id) override {
    v1::DeleteUploadRequest request;
    request.set_upload_id(upload_id);
    v1::DeleteUploadResponse response;
    return Call(&v1::ConversionService::Stub::DeleteUpload, request, response);
  }

  absl::StatusOr<std::vector<RemoteFile>> ListFiles(const std::string& path) override {
    v1::ListFilesRequest request;
    request.set_path(path);
    v1::ListFilesResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ConversionService::Stub::ListFiles, request, response));
    std::vector<RemoteFile> files;
    for (const v1::RemoteFile& file : response.files()) {
      files.push_back({file.name(), UnsignedOf(file.size_bytes())});
    }
    return files;
  }

  absl::Status UploadFile(const std::string& upload_id, const std::string& name,
                          const std::string& local_path, const TransferOptions& options) override;
  absl::Status DownloadFile(const std::string& path, const std::string& local_path,
                            const TransferOptions& options) override;

 private:
  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::ConversionService::Stub::*method)(grpc::ClientContext*,
                                                                        const Request&, Response*),
                    const Request& request, Response& response) {
    grpc::ClientContext context;
    SetDeadline(context, absl::Now() + kTransferCallTimeout);
    return FromGrpcStatus((stub_.get()->*method)(&context, request, &response));
  }

  absl::StatusOr<uint64_t> KeptOf(const std::string& upload_id, const std::string& name);
  absl::Status SendFrom(const v1::UploadHeader& header, const OwnedFd& file,
                        const std::string& local_path, FileHash& hash, Attempts& attempts,
                        const Cancellation* cancellation);
  absl::Status FetchOnce(const std::string& path, const OwnedFd& file,
                         const std::string& partial, Attempts& attempts,
                         const Cancellation* cancellation);

  const std::unique_ptr<v1::ConversionService::Stub> stub_;
};

// How much of a file the service has.
absl::StatusOr<uint64_t> Files::KeptOf(const std::string& upload_id, const std::string& name) {
  const absl::StatusOr<Upload> upload = GetUpload(upload_id, name);
  if (absl::IsNotFound(upload.status())) return 0;
  ODMOE_RETURN_IF_ERROR(upload.status());
  for (const UploadedFile& file : upload->files) {
    if (file.name == name) return file.kept_bytes;
  }
  return 0;
}

absl::Status Files::UploadFile(const std::string& upload_id, const std::string& name,
                               const std::string& local_path, const TransferOptions& options) {
  ODMOE_ASSIGN_OR_RETURN(const OwnedFd file, OpenFile(local_path, O_RDONLY));
  Attempts attempts(options);
  int hash_failures = 0;
  while (true) {
    absl::Status status;
    if (const auto kept = KeptOf(upload_id, name); !kept.ok()) {
      status = kept.status();
    } else {
      ODMOE_ASSIGN_OR_RETURN(const uint64_t size, SizeOf(file, local_path));
      v1::UploadHeader header;
      header.set_upload_id(upload_id);
      header.set_name(name);
      header.set_size_bytes(SignedOf(size));
      // More than this file has is another one's; it is refused or dropped by its hash.
      header.set_offset(SignedOf(*kept > size ? 0 : *kept));
      FileHash hash;
      ODMOE_RETURN_IF_ERROR(hash.AddFile(file.get(), uint64_t(header.offset()), local_path));
      header.set_prefix_hash(hash.value());
      status = SendFrom(header, file, local_path, hash, attempts, options.cancellation);
    }
    if (status.ok()) return status;
    if (IsCancelled(options)) return absl::CancelledError("interrupted; run it again to go on");
    // What the service had kept was not ours, or a byte was lost on the way: once more, as told.
    if (absl::IsDataLoss(status) && ++hash_failures <= 2) continue;
    if (!attempts.Again(status)) return status;
  }
}

absl::Status Files::SendFrom(const v1::UploadHeader& header, const OwnedFd& file,
                             const std::string& local_path, FileHash& hash, Attempts& attempts,
                             const Cancellation* cancellation) {
  grpc::ClientContext context;
  v1::UploadFileResponse response;
  const auto writer = stub_->UploadFile(&context, &response);
  const CancelCall cancel(context, cancellation);
  v1::UploadFileRequest request;
  *request.mutable_header() = header;
  bool open = writer->Write(request);
  uint64_t offset = uint64_t(header.offset());
  attempts.Progress(offset);
  const uint64_t size = uint64_t(header.size_bytes());
  absl::Status local;
  while (open && offset < size) {
    std::string& data = *request.mutable_chunk()->mutable_data();
    data.resize(std::min<uint64_t>(kChunkBytes, size - offset));
    const ssize_t count = ::pread(file.get(), data.data(), data.size(), off_t(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      local = count < 0 ? PosixError(errno, "read", local_path)
                        : absl::FailedPreconditionError(
                              absl::StrCat(local_path, " became shorter while it was sent"));
      context.TryCancel();
      break;
    }
    data.resize(size_t(count));
    hash.Add(data);
    request.mutable_chunk()->set_hash(FileHash::Of(data));
    open = writer->Write(request);
    if (!open) break;
    offset += data.size();
    attempts.Progress(offset);
  }
  if (open && local.ok()) {
    request.mutable_trailer()->set_hash(hash.value());
    writer->Write(request);
    writer->WritesDone();
  }
  const absl::Status status = FromGrpcStatus(writer->Finish());
  return local.ok() ? status : local;
}

absl::Status Files::DownloadFile(const std::string& path, const std::string& local_path,
                                 const TransferOptions& options) {
  const std::string partial = absl::StrCat(local_path, ".partial");
  ODMOE_ASSIGN_OR_RETURN(const OwnedFd file, OpenFile(partial, O_RDWR | O_CREAT));
  Attempts attempts(options);
  int restarts = 0;
  while (true) {
    const absl::Status status = FetchOnce(path, file, partial, attempts, options.cancellation);
    if (status.ok()) break;
    if (IsCancelled(options)) return absl::CancelledError("interrupted; run it again to go on");
    // What is here is not how the service's file begins, or bytes were lost: from the beginning.
    const bool other = absl::IsFailedPrecondition(status) || absl::IsOutOfRange(status) ||
                       absl::IsDataLoss(status);
    if (other && ++restarts <= 2) {
      if (::ftruncate(file.get(), 0) != 0) return PosixError(errno, "truncate", partial);
      continue;
    }
    if (!attempts.Again(status)) {
      struct stat info;
      // Nothing to go on from.
      if (::fstat(file.get(), &info) == 0 && info.st_size == 0) ::unlink(partial.c_str());
      return status;
    }
  }
  if (::fsync(file.get()) != 0) return PosixError(errno, "sync", partial);
  if (::rename(partial.c_str(), local_path.c_str()) != 0) {
    return PosixError(errno, "rename", partial);
  }
  const std::string folder = fs::path(local_path).parent_path().string();
  ODMOE_ASSIGN_OR_RETURN(const OwnedFd parent,
                         OpenFile(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY));
  return ::fsync(parent.get()) == 0 ? absl::OkStatus() : PosixError(errno, "sync", folder);
}

absl::Status Files::FetchOnce(const std::string& path, const OwnedFd& file,
                              const std::string& partial, Attempts& attempts,
                              const Cancellation* cancellation) {
  ODMOE_ASSIGN_OR_RETURN(uint64_t offset, SizeOf(file, partial));
  FileHash hash;
  ODMOE_RETURN_IF_ERROR(hash.AddFile(file.get(), offset, partial));
  v1::DownloadFileRequest request;
  request.set_path(path);
  request.set_offset(SignedOf(offset));
  request.set_prefix_hash(hash.value());
  grpc::ClientContext context;
  const auto reader = stub_->DownloadFile(&context, request);
  const CancelCall cancel(context, cancellation);
  v1::DownloadFileResponse response;
  absl::Status local;
  bool whole = false;
  uint64_t size = 0;
  while (local.ok() && reader->Read(&response)) {
    if (response.has_header()) {
      size = UnsignedOf(response.header().size_bytes());
      attempts.Progress(offset);
    } else if (response.has_chunk()) {
      const std::string& data = response.chunk().data();
      if (FileHash::Of(data) != response.chunk().hash() || data.size() > size - offset) {
        local = absl::DataLossError(
            absl::StrCat(path, ": offset ", offset, ": the chunk's hash or size is wrong"));
        break;
      }
      local = WriteAll(file, data, offset, partial);
      hash.Add(data);
      offset += data.size();
      if (local.ok()) attempts.Progress(offset);
    } else if (response.has_trailer()) {
      whole = offset == size && hash.value() == response.trailer().hash();
    }
  }
  if (!local.ok()) context.TryCancel();
  const absl::Status status = FromGrpcStatus(reader->Finish());
  ODMOE_RETURN_IF_ERROR(local);
  ODMOE_RETURN_IF_ERROR(status);
  if (whole) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path, ": the whole file's hash is wrong"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RemoteFiles>> ConnectRemoteFiles(const std::string& endpoint) {
  ODMOE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, MakeChannel(endpoint));
  return std::make_unique<Files>(std::move(channel));
}

}  // namespace odmoe
