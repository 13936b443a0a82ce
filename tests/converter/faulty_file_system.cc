#include "tests/converter/faulty_file_system.h"

#include <utility>

#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

class FaultyFile : public WritableFile {
 public:
  FaultyFile(FaultyFileSystem& fs, std::unique_ptr<WritableFile> file)
      : fs_(fs), file_(std::move(file)) {}

  using WritableFile::Append;
  absl::Status Append(absl::Span<const std::byte> data) override {
    ODMOE_RETURN_IF_ERROR(fs_.NextCall());
    return file_->Append(data);
  }
  absl::Status WriteAt(uint64_t offset, absl::Span<const std::byte> data) override {
    ODMOE_RETURN_IF_ERROR(fs_.NextCall());
    return file_->WriteAt(offset, data);
  }
  absl::Status Resize(uint64_t bytes) override {
    ODMOE_RETURN_IF_ERROR(fs_.NextCall());
    return file_->Resize(bytes);
  }
  absl::Status Allocate(uint64_t bytes) override {
    ODMOE_RETURN_IF_ERROR(fs_.NextCall());
    return file_->Allocate(bytes);
  }
  absl::Status Lock() override { return file_->Lock(); }
  absl::Status Sync() override {
    return fs_.NextCall();
  }
  absl::Status Close() override {
    ODMOE_RETURN_IF_ERROR(fs_.NextCall());
    return file_->Close();
  }
  uint64_t offset() const override { return file_->offset(); }
  const std::string& path() const override { return file_->path(); }

 private:
  FaultyFileSystem& fs_;
  const std::unique_ptr<WritableFile> file_;
};

}  // namespace

absl::Status FaultyFileSystem::NextCall() {
  const int64_t call = calls_++;
  if (fail_at_ == kNever || call < fail_at_) return absl::OkStatus();
  return call == fail_at_ || stays_broken_ ? failure_ : absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> FaultyFileSystem::OpenForRead(
    const std::string& path) {
  return PosixFileSystem().OpenForRead(path);
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultyFileSystem::OpenForWrite(
    const std::string& path) {
  ODMOE_RETURN_IF_ERROR(NextCall());
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, PosixFileSystem().OpenForWrite(path));
  return std::make_unique<FaultyFile>(*this, std::move(file));
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultyFileSystem::OpenForUpdate(
    const std::string& path) {
  ODMOE_RETURN_IF_ERROR(NextCall());
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, PosixFileSystem().OpenForUpdate(path));
  return std::make_unique<FaultyFile>(*this, std::move(file));
}

absl::Status FaultyFileSystem::Rename(const std::string& from, const std::string& to) {
  ODMOE_RETURN_IF_ERROR(NextCall());
  return PosixFileSystem().Rename(from, to);
}

absl::Status FaultyFileSystem::Remove(const std::string& path) {
  return PosixFileSystem().Remove(path);
}

absl::Status FaultyFileSystem::SyncDirectory(const std::string& path) { return NextCall(); }

absl::Status FaultyFileSystem::SyncFileSystem(const std::string& path) {
  return NextCall();
}

absl::Status FaultyFileSystem::CreateDirectories(const std::string& path) {
  ODMOE_RETURN_IF_ERROR(NextCall());
  return PosixFileSystem().CreateDirectories(path);
}

absl::StatusOr<std::vector<std::string>> FaultyFileSystem::ListDirectory(const std::string& path) {
  return PosixFileSystem().ListDirectory(path);
}

absl::StatusOr<uint64_t> FaultyFileSystem::FreeBytes(const std::string& path) {
  return free_bytes_;
}

}  // namespace odmoe
