#include "services/inference/service/model_host.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// A Cancellation wakes nobody, so waits look at it this often.
constexpr absl::Duration kCancellationPoll = absl::Milliseconds(20);

// Unlocks at the end what TryLock has locked.
class TryMutexLock {
 public:
  explicit TryMutexLock(absl::Mutex& mutex) : mutex_(mutex), held_(mutex.TryLock()) {}
  ~TryMutexLock() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (held_) mutex_.Unlock();
  }
  bool held() const { return held_; }

 private:
  absl::Mutex& mutex_;
  const bool held_;
};

absl::Status AnotherChange() {
  return absl::UnavailableError("a model is being loaded or unloaded; try again");
}

}  // namespace

absl::StatusOr<ModelInfo> ModelHost::Load(const std::string& path, int32_t context_length) {
  ODMOE_ASSIGN_OR_RETURN(const std::string resolved, roots_.Resolve(path, "path"));
  std::error_code error;
  if (!std::filesystem::exists(resolved, error)) {
    return absl::NotFoundError(absl::StrCat("no model directory or GGUF file at ", path));
  }
  const TryMutexLock change(changing_);
  if (!change.held()) return AnotherChange();
  {
    absl::MutexLock lock(&mutex_);
    if (loaded_ != nullptr) return FindLoaded(resolved, context_length);
  }
  auto loaded = std::make_shared<Loaded>();
  loaded->path = resolved;
  ODMOE_ASSIGN_OR_RETURN(loaded->model, open_model_(resolved, context_length));
  ODMOE_ASSIGN_OR_RETURN(loaded->info, loaded->model->Info());
  const ModelInfo info = loaded->info;
  {
    absl::MutexLock lock(&mutex_);
    loaded_ = std::move(loaded);
  }
  if (on_change_) on_change_();
  return info;
}

absl::StatusOr<ModelInfo> ModelHost::FindLoaded(const std::string& path, int32_t context_length) {
  if (loaded_->path != path) {
    return absl::FailedPreconditionError(
        absl::StrCat("model '", loaded_->info.name, "' is loaded; unload it first (odmoe unload)"));
  }
  if (context_length != 0 && context_length != loaded_->info.context_length) {
    return absl::FailedPreconditionError(
        absl::StrCat("model '", loaded_->info.name, "' is loaded with a context of ",
                     loaded_->info.context_length, " tokens, not ", context_length,
                     "; unload it first (odmoe unload)"));
  }
  return loaded_->info;
}

absl::Status ModelHost::Unload(const std::string& name, const CallOptions& call) {
  const TryMutexLock change(changing_);
  if (!change.held()) return AnotherChange();
  std::shared_ptr<Loaded> gone;  // ends outside of the lock: unmapping takes time
  {
    absl::MutexLock lock(&mutex_);
    ODMOE_RETURN_IF_ERROR(CheckName(name));
    unloading_ = true;
    const absl::Status unused = AwaitUnused(call);
    unloading_ = false;
    ODMOE_RETURN_IF_ERROR(unused);
    gone = std::move(loaded_);
  }
  if (on_change_) on_change_();
  return absl::OkStatus();
}

absl::Status ModelHost::AwaitUnused(const CallOptions& call) {
  const auto unused = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return loaded_->uses == 0; };
  while (true) {
    const absl::Time poll = std::min(call.deadline, absl::Now() + kCancellationPoll);
    if (mutex_.AwaitWithDeadline(absl::Condition(&unused), poll)) return absl::OkStatus();
    if (call.cancellation != nullptr && call.cancellation->cancelled()) {
      return absl::CancelledError("unloading was cancelled; the model stays loaded");
    }
    if (absl::Now() >= call.deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(loaded_->uses, " requests are under way; the model stays loaded"));
    }
  }
}

absl::StatusOr<ModelHost::Use> ModelHost::Get(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  ODMOE_RETURN_IF_ERROR(CheckName(name));
  if (unloading_) {
    return absl::FailedPreconditionError(
        absl::StrCat("model '", loaded_->info.name, "' is being unloaded"));
  }
  ++loaded_->uses;
  return Use(this, loaded_);
}

absl::Status ModelHost::CheckName(const std::string& name) const {
  if (loaded_ == nullptr) return absl::FailedPreconditionError("no model is loaded");
  if (name.empty() || name == loaded_->info.name) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("no model '", name, "' is loaded; '", loaded_->info.name, "' is"));
}

void ModelHost::EndUse(Loaded& loaded) {
  absl::MutexLock lock(&mutex_);
  --loaded.uses;
}

bool ModelHost::loaded() const {
  absl::MutexLock lock(&mutex_);
  return loaded_ != nullptr;
}

std::optional<ModelInfo> ModelHost::Info() const {
  absl::MutexLock lock(&mutex_);
  if (loaded_ == nullptr) return std::nullopt;
  return loaded_->info;
}

}  // namespace odmoe
