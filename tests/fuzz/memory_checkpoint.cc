#include "tests/fuzz/memory_checkpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tests/fuzz/fuzz_file.h"

namespace odmoe {
namespace {

absl::Status ReadOnly() { return absl::PermissionDeniedError("a checkpoint is only read"); }

}  // namespace

MemoryCheckpoint::MemoryCheckpoint() {
  Add("config.json", R"({"bos_token_id":1,"eos_token_id":[2]})");
  Add("model.safetensors", std::string("\2\0\0\0\0\0\0\0{}", 10));
}

void MemoryCheckpoint::Add(const std::string& name, std::string content) {
  files_[absl::StrCat(kFolder, "/", name)] = std::move(content);
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> MemoryCheckpoint::OpenForRead(
    const std::string& path) {
  const auto found = files_.find(path);
  if (found == files_.end()) return absl::NotFoundError(path);
  return FuzzFile(reinterpret_cast<const uint8_t*>(found->second.data()), found->second.size());
}

absl::StatusOr<std::unique_ptr<WritableFile>> MemoryCheckpoint::OpenForWrite(const std::string&) {
  return ReadOnly();
}
absl::StatusOr<std::unique_ptr<WritableFile>> MemoryCheckpoint::OpenForUpdate(const std::string&) {
  return ReadOnly();
}
absl::Status MemoryCheckpoint::Rename(const std::string&, const std::string&) { return ReadOnly(); }
absl::Status MemoryCheckpoint::Remove(const std::string&) { return ReadOnly(); }
absl::Status MemoryCheckpoint::SyncDirectory(const std::string&) { return ReadOnly(); }
absl::Status MemoryCheckpoint::SyncFileSystem(const std::string&) { return ReadOnly(); }
absl::Status MemoryCheckpoint::CreateDirectories(const std::string&) { return ReadOnly(); }

absl::StatusOr<std::vector<std::string>> MemoryCheckpoint::ListDirectory(const std::string& path) {
  if (path != kFolder) return absl::NotFoundError(path);
  std::vector<std::string> names;
  for (const auto& [file, content] : files_) {
    names.emplace_back(absl::StripPrefix(file, absl::StrCat(kFolder, "/")));
  }
  return names;
}

absl::StatusOr<uint64_t> MemoryCheckpoint::FreeBytes(const std::string&) { return 0; }

}  // namespace odmoe
