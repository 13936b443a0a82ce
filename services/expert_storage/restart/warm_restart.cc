#include "services/expert_storage/restart/warm_restart.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/expert_storage/restart/working_set_file.h"

namespace odmoe {
namespace {

std::string WorkingSetPath(const std::string& directory, const std::string& digest) {
  // A digest is hexadecimal; another's would be no name of a file of ours.
  std::string name;
  for (char c : digest) name.push_back(absl::ascii_isalnum(c) ? c : '_');
  return absl::StrCat(directory, "/", name, ".working-set");
}

}  // namespace

absl::StatusOr<std::unique_ptr<WarmRestart>> WarmRestart::Start(CachingExpertStore& store,
                                                                FileSystem& fs, Options options) {
  std::error_code error;
  std::filesystem::create_directories(options.directory, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat("state folder ", options.directory, ": ",
                                               error.message()));
  }
  auto restart = absl::WrapUnique(new WarmRestart(store, fs, std::move(options)));
  restart->restore_status_ = restart->Restore();
  restart->thread_ = std::thread([raw = restart.get()] { raw->SaveNowAndThen(); });
  return restart;
}

WarmRestart::WarmRestart(CachingExpertStore& store, FileSystem& fs, Options options)
    : store_(store), fs_(fs), options_(std::move(options)),
      path_(WorkingSetPath(options_.directory, store.catalog().model_digest())) {}

WarmRestart::~WarmRestart() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
  // The store goes on without what could not be saved, as after a kill.
  Save().IgnoreError();
}

absl::Status WarmRestart::Restore() {
  const absl::StatusOr<std::string> bytes = ReadWholeFile(fs_, path_, kMaxWorkingSetFileBytes);
  if (absl::IsNotFound(bytes.status())) return absl::OkStatus();
  ODMOE_RETURN_IF_ERROR(bytes.status());
  ODMOE_ASSIGN_OR_RETURN(const SavedWorkingSet saved, DecodeWorkingSet(*bytes, path_));
  ODMOE_ASSIGN_OR_RETURN(restored_, store_.PutBack(saved));
  return absl::OkStatus();
}

void WarmRestart::SaveNowAndThen() {
  const auto stopping = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_; };
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping), options_.period)) return;
    }
    // A disk that is full now may have room the next time.
    Save().IgnoreError();
  }
}

absl::Status WarmRestart::Save() {
  std::string bytes = EncodeWorkingSet(store_.SaveWorkingSet());
  absl::MutexLock lock(&mutex_);
  if (bytes == saved_) return absl::OkStatus();
  save_status_ = [&]() -> absl::Status {
    ODMOE_ASSIGN_OR_RETURN(const auto file, AtomicFile::Create(fs_, path_));
    ODMOE_RETURN_IF_ERROR(file->file().Append(absl::string_view(bytes)));
    return file->Commit();
  }();
  if (save_status_.ok()) saved_ = std::move(bytes);
  return save_status_;
}

absl::Status WarmRestart::save_status() const {
  absl::MutexLock lock(&mutex_);
  return save_status_;
}

}  // namespace odmoe
