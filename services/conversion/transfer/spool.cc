#include "services/conversion/transfer/spool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/io/open_beneath.h"
#include "services/core/io/posix_error.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kPartial = ".partial";
constexpr absl::Duration kMeasureInterval = absl::Seconds(10);

absl::Status CheckId(const std::string& id) {
  const bool form = id.size() >= 8 && id.size() <= 64 &&
                    std::all_of(id.begin(), id.end(), [](char c) {
                      return absl::ascii_isalnum(c) || c == '-' || c == '_';
                    });
  if (form) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "upload_id is not 8 to 64 letters, digits, \"-\" and \"_\"");
}

absl::StatusOr<uint64_t> SizeOf(const OwnedFd& file, const std::string& name) {
  struct stat info;
  if (::fstat(file.get(), &info) != 0) return PosixError(errno, "stat", name);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(name, " is not a regular file"));
  }
  return uint64_t(info.st_size);
}

// Bytes of all files below `path`; what vanishes meanwhile counts nothing.
uint64_t BytesBelow(const std::string& path, size_t* files = nullptr) {
  uint64_t bytes = 0;
  std::error_code error;
  for (auto entry = fs::recursive_directory_iterator(path, error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::error_code entry_error;
    if (!entry->is_regular_file(entry_error) || entry->is_symlink(entry_error)) continue;
    const uint64_t size = entry->file_size(entry_error);
    if (!entry_error) bytes += size;
    if (files != nullptr) ++*files;
  }
  return bytes;
}

// So that an upload in use does not expire.
void Touch(const OwnedFd& folder) { ::futimens(folder.get(), nullptr); }

}  // namespace

absl::StatusOr<std::unique_ptr<Spool>> Spool::Open(SpoolOptions options) {
  if (::mkdir(options.directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return PosixError(errno, "create", options.directory);
  }
  std::error_code error;
  options.directory = fs::canonical(options.directory, error).string();
  auto spool = absl::WrapUnique(new Spool(std::move(options)));
  const std::string& path = spool->options_.directory;
  spool->directory_ = OwnedFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (spool->directory_.get() < 0) return PosixError(errno, "open", path);
  return spool;
}

absl::StatusOr<OwnedFd> Spool::OpenUpload(const std::string& id) const {
  ODMOE_RETURN_IF_ERROR(CheckId(id));
  auto folder = OpenBeneath(directory_.get(), id, O_RDONLY | O_DIRECTORY);
  if (absl::IsNotFound(folder.status())) return absl::NotFoundError("no such upload");
  return folder;
}

void Spool::Measure(absl::Time since) {
  {
    absl::MutexLock lock(&mutex_);
    if (measured_ >= since) return;
  }
  const absl::Time now = absl::Now();
  size_t files = 0;
  const uint64_t bytes = BytesBelow(options_.directory, &files);
  absl::MutexLock lock(&mutex_);
  measured_ = now;
  used_bytes_ = bytes;
  used_files_ = files;
}

absl::Status Spool::CheckQuota(uint64_t more_bytes) {
  // Jobs write here, too, so the disk is looked at from time to time, and before a refusal.
  uint64_t used = 0, reserved = 0;
  const auto fits = [&](absl::Time since) {
    Measure(since);
    absl::MutexLock lock(&mutex_);
    used = used_bytes_;
    reserved = reserved_bytes_;
    if (used_files_ >= kMaxFiles) return false;
    if (options_.quota_bytes == 0) return true;
    return used <= options_.quota_bytes && reserved <= options_.quota_bytes - used &&
           more_bytes <= options_.quota_bytes - used - reserved;
  };
  if (!fits(absl::Now() - kMeasureInterval) && !fits(absl::Now())) {
    return absl::ResourceExhaustedError(
        absl::StrCat("uploads hold ", FormatBytes(used + reserved), " of ",
                     FormatBytes(options_.quota_bytes), ", and ", FormatBytes(more_bytes),
                     " more do not fit, or there are ", kMaxFiles, " files"));
  }
  struct statvfs disk;
  if (::fstatvfs(directory_.get(), &disk) != 0) return absl::OkStatus();
  const uint64_t free = uint64_t(disk.f_bavail) * disk.f_frsize;
  if (free >= reserved && free - reserved >= more_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the service's disk has ", FormatBytes(free), " free, ", FormatBytes(more_bytes),
      " are needed"));
}

absl::StatusOr<std::unique_ptr<Spool::Writer>> Spool::Write(const std::string& id,
                                                            const std::string& name, uint64_t size,
                                                            uint64_t offset,
                                                            uint64_t prefix_hash) {
  ODMOE_RETURN_IF_ERROR(CheckId(id));
  ODMOE_RETURN_IF_ERROR(CheckRelativeName(name, "name"));
  if (absl::EndsWith(name, kPartial)) {
    return absl::InvalidArgumentError(absl::StrCat("name ends in \"", kPartial, "\""));
  }
  if (offset > size) {
    return absl::OutOfRangeError(absl::StrCat("offset ", offset, " is past the size ", size));
  }
  ODMOE_RETURN_IF_ERROR(CheckQuota(size - offset));
  auto writer = absl::WrapUnique(new Writer(*this, id, name, size));
  {
    absl::MutexLock lock(&mutex_);
    if (!writing_.emplace(id, name).second) {
      return absl::AbortedError(absl::StrCat(name, " is being written by another call"));
    }
    writer->counted_ = true;
    writer->written_ = offset;
    reserved_bytes_ += size - offset;
  }
  ODMOE_RETURN_IF_ERROR(writer->Start(offset, prefix_hash));
  return writer;
}

absl::Status Spool::Writer::Start(uint64_t offset, uint64_t prefix_hash) {
  if (::mkdirat(spool_.directory_.get(), id_.c_str(), 0700) != 0 && errno != EEXIST) {
    return PosixError(errno, "create", id_);
  }
  ODMOE_ASSIGN_OR_RETURN(upload_, spool_.OpenUpload(id_));
  Touch(upload_);
  auto whole = OpenBeneath(upload_.get(), name_, O_RDONLY);
  complete_ = whole.ok();
  if (complete_) {
    file_ = *std::move(whole);
  } else if (!absl::IsNotFound(whole.status())) {
    return whole.status();
  } else {
    ODMOE_ASSIGN_OR_RETURN(file_, OpenBeneath(upload_.get(), absl::StrCat(name_, kPartial),
                                              O_RDWR | O_CREAT, /*create_folders=*/true));
  }
  ODMOE_ASSIGN_OR_RETURN(const uint64_t kept, SizeOf(file_, name_));
  if (complete_ && kept != size_) {
    return absl::AlreadyExistsError(
        absl::StrCat(name_, " is complete with ", kept, " bytes, not ", size_));
  }
  if (offset > kept || (complete_ && offset != kept)) {
    return absl::OutOfRangeError(absl::StrCat(name_, ": offset ", offset, ", kept are ", kept));
  }
  ODMOE_RETURN_IF_ERROR(hash_.AddFile(file_.get(), offset, name_));
  const bool same = offset == 0 || hash_.value() == prefix_hash;
  if (!complete_ && ::ftruncate(file_.get(), same ? off_t(offset) : 0) != 0) {
    return PosixError(errno, "truncate", name_);
  }
  if (same) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(name_, ": the ", offset, " bytes kept are not the client's",
                   complete_ ? "" : "; they are dropped"));
}

Spool::Writer::~Writer() {
  if (!counted_) return;
  absl::MutexLock lock(&spool_.mutex_);
  spool_.writing_.erase({id_, name_});
  spool_.reserved_bytes_ -= size_ - written_;
}

absl::Status Spool::Writer::Append(absl::string_view data, uint64_t hash) {
  if (data.size() > size_ - written_) {
    return absl::OutOfRangeError(absl::StrCat(name_, ": ", data.size(), " bytes at offset ",
                                              written_, " go past the size ", size_));
  }
  if (FileHash::Of(data) != hash) {
    return absl::DataLossError(
        absl::StrCat(name_, ": offset ", written_, ": the chunk's hash is wrong"));
  }
  for (size_t done = 0; done < data.size();) {
    const ssize_t count = ::pwrite(file_.get(), data.data() + done, data.size() - done,
                                   off_t(written_ + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return PosixError(errno, "write", name_);
    done += size_t(count);
  }
  hash_.Add(data);
  written_ += data.size();
  absl::MutexLock lock(&spool_.mutex_);
  spool_.reserved_bytes_ -= data.size();
  spool_.used_bytes_ += data.size();
  return absl::OkStatus();
}

absl::StatusOr<UploadedFile> Spool::Writer::Finish(uint64_t hash) {
  if (written_ != size_) {
    return absl::FailedPreconditionError(
        absl::StrCat(name_, ": the trailer comes after ", written_, " bytes of ", size_));
  }
  if (hash_.value() != hash) {
    if (!complete_) ::ftruncate(file_.get(), 0);
    return absl::DataLossError(absl::StrCat(name_, ": the whole file's hash is wrong"));
  }
  if (complete_) return UploadedFile{name_, size_, true};
  if (::fsync(file_.get()) != 0) return PosixError(errno, "sync", name_);
  const size_t slash = name_.rfind('/');
  const std::string last = slash == name_.npos ? name_ : name_.substr(slash + 1);
  OwnedFd folder;
  if (slash == name_.npos) {
    folder = OwnedFd(::fcntl(upload_.get(), F_DUPFD_CLOEXEC, 0));
  } else {
    ODMOE_ASSIGN_OR_RETURN(folder, OpenBeneath(upload_.get(), name_.substr(0, slash),
                                               O_RDONLY | O_DIRECTORY));
  }
  const std::string partial = absl::StrCat(last, kPartial);
  if (::renameat(folder.get(), partial.c_str(), folder.get(), last.c_str()) != 0 ||
      ::fsync(folder.get()) != 0) {
    return PosixError(errno, "rename", name_);
  }
  Touch(upload_);
  return UploadedFile{name_, size_, true};
}

// NOT_FOUND: nothing of it is there.
absl::StatusOr<UploadedFile> Spool::Find(const OwnedFd& upload, const std::string& name) {
  UploadedFile found{name, 0, true};
  auto file = OpenBeneath(upload.get(), name, O_RDONLY);
  if (absl::IsNotFound(file.status())) {
    found.complete = false;
    file = OpenBeneath(upload.get(), absl::StrCat(name, kPartial), O_RDONLY);
  }
  ODMOE_RETURN_IF_ERROR(file.status());
  ODMOE_ASSIGN_OR_RETURN(found.kept_bytes, SizeOf(*file, name));
  return found;
}

absl::StatusOr<Upload> Spool::Get(const std::string& id, const std::string& only) {
  ODMOE_ASSIGN_OR_RETURN(const OwnedFd folder, OpenUpload(id));
  Touch(folder);
  Upload upload;
  upload.directory = PathOf(id);
  upload.expires = absl::Now() + options_.keep;
  if (!only.empty()) {
    ODMOE_RETURN_IF_ERROR(CheckRelativeName(only, "name"));
    auto file = Find(folder, only);
    if (absl::IsNotFound(file.status())) return upload;
    ODMOE_RETURN_IF_ERROR(file.status());
    upload.files.push_back(*std::move(file));
    return upload;
  }
  std::error_code error;
  for (auto entry = fs::recursive_directory_iterator(upload.directory, error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::error_code entry_error;
    if (!entry->is_regular_file(entry_error) || entry->is_symlink(entry_error)) continue;
    UploadedFile file;
    absl::string_view name = entry->path().native();
    name.remove_prefix(upload.directory.size() + 1);
    file.complete = !absl::ConsumeSuffix(&name, kPartial);
    file.name = std::string(name);
    file.kept_bytes = entry->file_size(entry_error);
    if (!entry_error) upload.files.push_back(std::move(file));
  }
  if (error) return PosixError(error.value(), "list", id);
  std::sort(upload.files.begin(), upload.files.end(),
            [](const UploadedFile& a, const UploadedFile& b) { return a.name < b.name; });
  return upload;
}

absl::Status Spool::CheckUnused(const std::string& id) {
  {
    absl::MutexLock lock(&mutex_);
    const auto writer = writing_.lower_bound({id, ""});
    if (writer != writing_.end() && writer->first == id) {
      return absl::FailedPreconditionError(
          absl::StrCat("file ", writer->second, " of upload ", id, " is being written"));
    }
  }
  if (!options_.in_use) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(const bool used, options_.in_use(PathOf(id)));
  if (!used) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("a job that has not ended uses upload ", id));
}

absl::Status Spool::Delete(const std::string& id) {
  ODMOE_RETURN_IF_ERROR(OpenUpload(id).status());
  ODMOE_RETURN_IF_ERROR(CheckUnused(id));
  std::error_code error;
  fs::remove_all(PathOf(id), error);  // removes links, and follows none
  return error ? PosixError(error.value(), "remove", id) : absl::OkStatus();
}

absl::Status Spool::Expire(absl::Time now) {
  std::error_code error;
  absl::Status first;
  for (const auto& entry : fs::directory_iterator(options_.directory, error)) {
    const std::string id = entry.path().filename().string();
    struct stat info;
    if (!CheckId(id).ok() || ::lstat(entry.path().c_str(), &info) != 0) continue;
    if (absl::TimeFromTimespec(info.st_mtim) + options_.keep > now) continue;
    const absl::Status deleted = Delete(id);
    if (!deleted.ok() && !absl::IsFailedPrecondition(deleted)) first.Update(deleted);
  }
  return first;
}

}  // namespace odmoe
