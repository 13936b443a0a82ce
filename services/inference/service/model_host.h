// The one loaded model: how it comes, who uses it, how it goes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/core/generation/language_model.h"
#include "services/core/io/path_roots.h"
#include "services/inference/service/inference_service.h"

namespace odmoe {

// Thread-safe.
class ModelHost {
 private:
  struct Loaded {
    std::string path;  // resolved
    ModelInfo info;
    std::unique_ptr<LanguageModel> model;
    int uses = 0;  // guarded by the host's mutex
  };

 public:
  // Keeps the model from being unloaded. Movable; the host outlives it.
  class Use {
   public:
    Use(ModelHost* host, std::shared_ptr<Loaded> loaded)
        : host_(host), loaded_(std::move(loaded)) {}
    Use(Use&& other) = default;
    Use& operator=(Use&&) = delete;
    ~Use() {
      if (loaded_ != nullptr) host_->EndUse(*loaded_);
    }
    LanguageModel& model() const { return *loaded_->model; }
    const ModelInfo& info() const { return loaded_->info; }

   private:
    ModelHost* host_;
    std::shared_ptr<Loaded> loaded_;
  };

  ModelHost(ModelFactory open_model, PathRoots roots)
      : open_model_(std::move(open_model)), roots_(std::move(roots)) {}

  // Loads, or finds loaded with the same context length. INVALID_ARGUMENT, PERMISSION_DENIED: the
  // path, as PathRoots says. NOT_FOUND: nothing there. FAILED_PRECONDITION: another model is
  // loaded, or this one otherwise. UNAVAILABLE: a load or unload is under way. Errors of the
  // factory.
  absl::StatusOr<ModelInfo> Load(const std::string& path, int32_t context_length);

  // Refuses new uses and waits until those under way have ended. An empty name is the loaded one.
  // NOT_FOUND, FAILED_PRECONDITION as Get. UNAVAILABLE as Load. DEADLINE_EXCEEDED, CANCELLED: the
  // call ended first; the model stays.
  absl::Status Unload(const std::string& name, const CallOptions& call);

  // FAILED_PRECONDITION: no model is loaded, or it is being unloaded. NOT_FOUND: another name.
  absl::StatusOr<Use> Get(const std::string& name);

  bool loaded() const;
  // Of the loaded model; nothing where there is none.
  std::optional<ModelInfo> Info() const;
  // Called outside of locks after each load and unload. Set before the first.
  void set_on_change(std::function<void()> on_change) { on_change_ = std::move(on_change); }

 private:
  absl::StatusOr<ModelInfo> FindLoaded(const std::string& path, int32_t context_length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckName(const std::string& name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status AwaitUnused(const CallOptions& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndUse(Loaded& loaded);

  const ModelFactory open_model_;
  const PathRoots roots_;
  std::function<void()> on_change_;

  // Held over a load or an unload, which may take minutes.
  absl::Mutex changing_ ABSL_ACQUIRED_BEFORE(mutex_);
  mutable absl::Mutex mutex_;
  std::shared_ptr<Loaded> loaded_ ABSL_GUARDED_BY(mutex_);
  bool unloading_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace odmoe
