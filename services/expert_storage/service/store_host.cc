#include "services/expert_storage/service/store_host.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/model_path.h"

namespace odmoe {
namespace {

// Links resolved as far as the path exists, and no ".." or trailing slash left.
absl::StatusOr<std::string> Canonical(const std::string& path) {
  std::error_code error;
  std::filesystem::path resolved = std::filesystem::weakly_canonical(path, error);
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat("path '", path, "': ", error.message()));
  }
  if (!resolved.has_filename()) resolved = resolved.parent_path();
  return resolved.string();
}

bool Below(const std::string& path, const std::string& root) {
  return path == root || root == "/" || absl::StartsWith(path, absl::StrCat(root, "/"));
}

bool Same(const Budget& a, const Budget& b) {
  return a.kind == b.kind && (a.kind != Budget::Kind::kBytes || a.bytes == b.bytes) &&
         (a.kind != Budget::Kind::kPercent || a.percent == b.percent);
}

}  // namespace

absl::StatusOr<std::string> StoreHost::Allowed(const std::string& path) const {
  if (path.empty() || path[0] != '/') {
    return absl::InvalidArgumentError(absl::StrCat("path '", path, "' is not absolute"));
  }
  ODMOE_ASSIGN_OR_RETURN(const std::string resolved, Canonical(path));
  for (const std::string& root : options_.roots) {
    const absl::StatusOr<std::string> resolved_root = Canonical(root);
    if (resolved_root.ok() && Below(resolved, *resolved_root)) return resolved;
  }
  return absl::PermissionDeniedError(
      absl::StrCat("'", path, "' is not below a folder this store may open models in"));
}

absl::StatusOr<std::shared_ptr<HostedModel>> StoreHost::OpenForClient(const std::string& path,
                                                                      const Budget& budget,
                                                                      SourceKind source) {
  ODMOE_ASSIGN_OR_RETURN(const std::string resolved, Allowed(path));
  return Open(resolved, budget, source);
}

absl::StatusOr<std::shared_ptr<HostedModel>> StoreHost::Open(const std::string& path,
                                                             const Budget& budget,
                                                             const SourceOptions& source) {
  auto model = std::make_shared<HostedModel>();
  ODMOE_ASSIGN_OR_RETURN(model->directory, Canonical(path));
  model->name = ModelNameOf(model->directory);
  model->budget = budget;
  {
    absl::MutexLock lock(&mutex_);
    if (model_ != nullptr && model_->directory == model->directory &&
        Same(model_->budget, budget)) {
      return model_;
    }
    if (model_ != nullptr || opening_) {
      return absl::FailedPreconditionError(absl::StrCat(
          "this store serves ", model_ ? model_->name : "a model that is being opened",
          " already; close it first"));
    }
    opening_ = true;
  }
  OpenStoreOptions options;
  options.model_directory = model->directory;
  options.budget = budget;
  options.source = source;
  options.prefetch = options_.prefetch;
  options.policy = options_.policy;
  options.shadow_policies = options_.shadow_policies;
  options.use_memfd = true;
  options.tenants = options_.tenants;
  auto store = OpenExpertStore(options, &model->source);
  absl::MutexLock lock(&mutex_);
  opening_ = false;
  ODMOE_RETURN_IF_ERROR(store.status());
  model->store = *std::move(store);
  if (!options_.restart.directory.empty()) {
    ODMOE_ASSIGN_OR_RETURN(
        model->restart, WarmRestart::Start(*model->store, PosixFileSystem(), options_.restart));
  }
  model->opened = absl::Now();
  model_ = model;
  return model;
}

absl::Status StoreHost::Serve(std::string name, std::unique_ptr<CachingExpertStore> store) {
  auto model = std::make_shared<HostedModel>();
  model->name = std::move(name);
  model->store = std::move(store);
  model->opened = absl::Now();
  absl::MutexLock lock(&mutex_);
  if (model_ != nullptr || opening_)
    return absl::FailedPreconditionError("a model is open already");
  model_ = std::move(model);
  return absl::OkStatus();
}

absl::Status StoreHost::Close(absl::string_view name) {
  std::shared_ptr<HostedModel> closed;
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(closed, FindLocked(name));
  ODMOE_ASSIGN_OR_RETURN(const StoreStats stats, closed->store->Stats());
  if (stats.clients > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(closed->name, " is in use: ", stats.clients, " sessions are open on it"));
  }
  model_ = nullptr;
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<HostedModel>> StoreHost::Find(absl::string_view name) const {
  absl::ReaderMutexLock lock(&mutex_);
  return FindLocked(name);
}

absl::StatusOr<std::shared_ptr<HostedModel>> StoreHost::FindLocked(absl::string_view name) const {
  if (model_ != nullptr && (name.empty() || name == model_->name)) return model_;
  if (name.empty()) return absl::NotFoundError("no model is open");
  return absl::NotFoundError(absl::StrCat("no model '", name, "' is open"));
}

absl::StatusOr<StoreHost::Attached> StoreHost::Attach(absl::string_view name,
                                                      std::string client_name,
                                                      absl::string_view tenant) {
  // Under the lock, so that Close sees the session or the session does not see the model.
  absl::ReaderMutexLock lock(&mutex_);
  Attached attached;
  ODMOE_ASSIGN_OR_RETURN(attached.model, FindLocked(name));
  ODMOE_ASSIGN_OR_RETURN(attached.client, attached.model->store->AttachClient(client_name, tenant));
  return attached;
}

std::vector<std::shared_ptr<HostedModel>> StoreHost::List() const {
  absl::ReaderMutexLock lock(&mutex_);
  if (model_ == nullptr) return {};
  return {model_};
}

}  // namespace odmoe
