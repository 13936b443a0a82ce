#include "services/conversion/jobs/rooted_file_system.h"

#include "services/core/base/status_macros.h"

namespace odmoe {

absl::Status RootedFileSystem::Check(const std::string& path) const {
  return roots_.Resolve(path, "file").status();
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> RootedFileSystem::OpenForRead(
    const std::string& path) {
  ODMOE_RETURN_IF_ERROR(Check(path));
  return base_.OpenForRead(path);
}

absl::StatusOr<std::unique_ptr<WritableFile>> RootedFileSystem::OpenForWrite(
    const std::string& path) {
  ODMOE_RETURN_IF_ERROR(Check(path));
  return base_.OpenForWrite(path);
}

absl::StatusOr<std::unique_ptr<WritableFile>> RootedFileSystem::OpenForUpdate(
    const std::string& path) {
  ODMOE_RETURN_IF_ERROR(Check(path));
  return base_.OpenForUpdate(path);
}

absl::Status RootedFileSystem::Rename(const std::string& from, const std::string& to) {
  ODMOE_RETURN_IF_ERROR(Check(from));
  ODMOE_RETURN_IF_ERROR(Check(to));
  return base_.Rename(from, to);
}

absl::Status RootedFileSystem::Remove(const std::string& path) {
  ODMOE_RETURN_IF_ERROR(Check(path));
  return base_.Remove(path);
}

absl::Status RootedFileSystem::SyncDirectory(const std::string& path) {
  ODMOE_RETURN_IF_ERROR(Check(path));
  return base_.SyncDirectory(path);
}

absl::Status RootedFileSystem::SyncFileSystem(const std::string& path) {
  ODMOE_RETURN_IF_ERROR(Check(path));
  return base_.SyncFileSystem(path);
}

absl::Status RootedFileSystem::CreateDirectories(const std::string& path) {
  ODMOE_RETURN_IF_ERROR(Check(path));
  return base_.CreateDirectories(path);
}

absl::StatusOr<std::vector<std::string>> RootedFileSystem::ListDirectory(const std::string& path) {
  ODMOE_RETURN_IF_ERROR(Check(path));
  return base_.ListDirectory(path);
}

absl::StatusOr<uint64_t> RootedFileSystem::FreeBytes(const std::string& path) {
  ODMOE_RETURN_IF_ERROR(Check(path));
  return base_.FreeBytes(path);
}

}  // namespace odmoe
