#include "tests/support/simulated_disk.h"

#include <algorithm>
#include <filesystem>
#include <random>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

std::string FolderOf(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

class ReadFile : public RandomAccessFile {
 public:
  ReadFile(std::string path, std::string bytes)
      : path_(std::move(path)), bytes_(std::move(bytes)) {}
  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
      return absl::OutOfRangeError(path_);
    }
    std::copy_n(bytes_.data() + offset, out.size(), reinterpret_cast<char*>(out.data()));
    return absl::OkStatus();
  }
  uint64_t size() const override { return bytes_.size(); }
  const std::string& path() const override { return path_; }

 private:
  const std::string path_;
  const std::string bytes_;
};

}  // namespace

// An open file of it. A process's locks end with its files.
class SimulatedFile : public WritableFile {
 public:
  SimulatedFile(SimulatedDisk& disk, std::string path, std::shared_ptr<SimulatedDisk::Inode> inode)
      : disk_(disk), path_(std::move(path)), inode_(std::move(inode)) {}
  ~SimulatedFile() override {
    absl::MutexLock lock(&disk_.mutex_);
    if (holds_lock_) inode_->locked = false;
  }

  using WritableFile::Append;
  absl::Status Append(absl::Span<const std::byte> data) override {
    ODMOE_RETURN_IF_ERROR(WriteAt(offset_, data));
    offset_ += data.size();
    return absl::OkStatus();
  }
  absl::Status WriteAt(uint64_t offset, absl::Span<const std::byte> data) override {
    return Change({offset, std::string(reinterpret_cast<const char*>(data.data()), data.size())});
  }
  absl::Status Resize(uint64_t bytes) override { return Change({bytes, ""}); }
  absl::Status Lock() override {
    absl::MutexLock lock(&disk_.mutex_);
    if (inode_->locked) return absl::FailedPreconditionError(absl::StrCat(path_, " is in use"));
    inode_->locked = holds_lock_ = true;
    return absl::OkStatus();
  }
  absl::Status Sync() override {
    absl::MutexLock lock(&disk_.mutex_);
    ODMOE_RETURN_IF_ERROR(disk_.Next());
    inode_->durable = inode_->now;
    inode_->pending.clear();
    return absl::OkStatus();
  }
  absl::Status Close() override {
    absl::MutexLock lock(&disk_.mutex_);
    return disk_.Next();
  }
  uint64_t offset() const override { return offset_; }
  const std::string& path() const override { return path_; }

 private:
  absl::Status Change(SimulatedDisk::Change change) {
    absl::MutexLock lock(&disk_.mutex_);
    ODMOE_RETURN_IF_ERROR(disk_.Next());
    SimulatedDisk::Apply(change, inode_->now);
    if (disk_.watcher_ && !change.bytes.empty()) {
      disk_.watcher_(path_, change.offset, change.bytes.size());
    }
    inode_->pending.push_back(std::move(change));
    return absl::OkStatus();
  }

  SimulatedDisk& disk_;
  const std::string path_;
  const std::shared_ptr<SimulatedDisk::Inode> inode_;
  uint64_t offset_ = 0;
  bool holds_lock_ = false;
};

void SimulatedDisk::Apply(const Change& change, std::string& bytes) {
  if (change.bytes.empty()) return bytes.resize(change.offset);
  bytes.resize(std::max<size_t>(bytes.size(), change.offset + change.bytes.size()));
  bytes.replace(change.offset, change.bytes.size(), change.bytes);
}

void SimulatedDisk::Apply(const NameChange& change, Names& names) {
  if (change.second == nullptr) {
    names.erase(change.first);
  } else {
    names[change.first] = change.second;
  }
}

absl::Status SimulatedDisk::Next() {
  const int64_t call = calls_++;
  if (fail_at_ < 0 || call < fail_at_) return absl::OkStatus();
  return call == fail_at_ || for_good_ ? failure_ : absl::OkStatus();
}

void SimulatedDisk::FailAt(int64_t at, absl::Status failure, bool for_good) {
  absl::MutexLock lock(&mutex_);
  calls_ = 0;
  fail_at_ = at;
  failure_ = std::move(failure);
  for_good_ = for_good;
}

int64_t SimulatedDisk::calls() const {
  absl::MutexLock lock(&mutex_);
  return calls_;
}

void SimulatedDisk::Restart() {
  absl::MutexLock lock(&mutex_);
  fail_at_ = -1;
  calls_ = 0;
}

void SimulatedDisk::LosePower(uint64_t seed) {
  {
    absl::MutexLock lock(&mutex_);
    std::mt19937_64 random(seed);
    // Names change in order, as a journaling file system keeps them.
    const size_t kept = random() % (pending_names_.size() + 1);
    for (size_t i = 0; i < kept; ++i) Apply(pending_names_[i], durable_names_);
    pending_names_.clear();
    names_ = durable_names_;
    for (auto& [path, inode] : names_) {
      // Bytes reach the disk in any order.
      for (const Change& change : inode->pending) {
        if (random() % 2 == 0) Apply(change, inode->durable);
      }
      inode->pending.clear();
      inode->now = inode->durable;
    }
  }
  Restart();
}

void SimulatedDisk::WatchWrites(WriteWatcher watcher) {
  absl::MutexLock lock(&mutex_);
  watcher_ = std::move(watcher);
}

void SimulatedDisk::Write(const std::string& path, std::string bytes) {
  absl::MutexLock lock(&mutex_);
  auto inode = std::make_shared<Inode>();
  inode->now = inode->durable = std::move(bytes);
  names_[path] = durable_names_[path] = inode;
}

std::map<std::string, std::string> SimulatedDisk::Files() const {
  absl::MutexLock lock(&mutex_);
  std::map<std::string, std::string> files;
  for (const auto& [path, inode] : names_) files[path] = inode->now;
  return files;
}

void SimulatedDisk::SetName(const std::string& path, std::shared_ptr<Inode> inode) {
  pending_names_.emplace_back(path, std::move(inode));
  Apply(pending_names_.back(), names_);
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> SimulatedDisk::OpenForRead(
    const std::string& path) {
  absl::MutexLock lock(&mutex_);
  const auto found = names_.find(path);
  if (found == names_.end()) return absl::NotFoundError(path);
  return std::make_unique<ReadFile>(path, found->second->now);
}

absl::StatusOr<std::unique_ptr<WritableFile>> SimulatedDisk::OpenForWrite(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  ODMOE_RETURN_IF_ERROR(Next());
  if (names_.count(path) == 0) SetName(path, std::make_shared<Inode>());
  const std::shared_ptr<Inode>& inode = names_[path];
  inode->pending.push_back({0, ""});
  Apply(inode->pending.back(), inode->now);
  return std::make_unique<SimulatedFile>(*this, path, inode);
}

absl::StatusOr<std::unique_ptr<WritableFile>> SimulatedDisk::OpenForUpdate(
    const std::string& path) {
  absl::MutexLock lock(&mutex_);
  ODMOE_RETURN_IF_ERROR(Next());
  if (names_.count(path) == 0) SetName(path, std::make_shared<Inode>());
  return std::make_unique<SimulatedFile>(*this, path, names_[path]);
}

absl::Status SimulatedDisk::Rename(const std::string& from, const std::string& to) {
  absl::MutexLock lock(&mutex_);
  ODMOE_RETURN_IF_ERROR(Next());
  const auto found = names_.find(from);
  if (found == names_.end()) return absl::NotFoundError(from);
  SetName(to, found->second);
  SetName(from, nullptr);
  return absl::OkStatus();
}

absl::Status SimulatedDisk::Remove(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  ODMOE_RETURN_IF_ERROR(Next());
  if (names_.count(path) == 0) return absl::NotFoundError(path);
  SetName(path, nullptr);
  return absl::OkStatus();
}

absl::Status SimulatedDisk::SyncDirectory(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  ODMOE_RETURN_IF_ERROR(Next());
  std::vector<NameChange> left;
  for (NameChange& change : pending_names_) {
    if (FolderOf(change.first) == path) {
      Apply(change, durable_names_);
    } else {
      left.push_back(std::move(change));
    }
  }
  pending_names_ = std::move(left);
  return absl::OkStatus();
}

absl::Status SimulatedDisk::SyncFileSystem(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  ODMOE_RETURN_IF_ERROR(Next());
  for (auto& [name, inode] : names_) {
    inode->durable = inode->now;
    inode->pending.clear();
  }
  pending_names_.clear();
  durable_names_ = names_;
  return absl::OkStatus();
}

absl::Status SimulatedDisk::CreateDirectories(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  return Next();
}

absl::StatusOr<std::vector<std::string>> SimulatedDisk::ListDirectory(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> names;
  for (const auto& [name, inode] : names_) {
    if (FolderOf(name) == path) names.push_back(std::filesystem::path(name).filename().string());
  }
  return names;
}

}  // namespace odmoe
