#include "services/expert_storage/service/store_host.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/model_path.h"

namespace odmoe {
namespace {

// How long models that must give up memory for another may hold their pins.
constexpr absl::Duration kMakeRoom = absl::Seconds(30);
// How soon it is noticed that the last stream from a closed model has ended.
constexpr absl::Duration kCloserPoll = absl::Milliseconds(20);
constexpr size_t kClosers = 4;

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

StoreHost::StoreHost(Options options)
    : options_(std::move(options)), total_(options_.total), closers_(kClosers) {}

StoreHost::~StoreHost() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
}

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
  absl::MutexLock changing(&change_mutex_);
  {
    absl::ReaderMutexLock lock(&mutex_);
    for (const Member& member : members_) {
      if (member.model->name != model->name) continue;
      if (member.model->directory == model->directory && Same(member.request.budget, budget)) {
        return member.model;
      }
      return absl::FailedPreconditionError(absl::StrCat(
          model->name, " is open already, ",
          member.model->directory == model->directory
              ? "with another budget: resize it (odmoe resize), or close it first (odmoe unload)"
              : absl::StrCat("from ", member.model->directory,
                             ": close it first (odmoe unload)")));
    }
  }
  auto opened = OpenNew(std::move(model), budget, source);
  if (!opened.ok()) ShareAnew();
  return opened;
}

absl::StatusOr<std::shared_ptr<HostedModel>> StoreHost::OpenNew(std::shared_ptr<HostedModel> model,
                                                                const Budget& budget,
                                                                const SourceOptions& source) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t demand, ReadDemand(model->directory));
  ODMOE_ASSIGN_OR_RETURN(auto experts, OpenExpertSource(model->directory, source, &model->source));
  const ExpertCatalog& catalog = experts->catalog();
  const uint64_t slot_bytes = SlotBytes(catalog.max_expert_bytes());
  const uint64_t count = static_cast<uint64_t>(catalog.expert_count());
  Member member{model, {model->name, budget, std::min(demand, count) * slot_bytes,
                        count * slot_bytes}};
  std::vector<Member> members = Sharing();
  std::vector<ShareRequest> requests;
  for (const Member& other : members) requests.push_back(other.request);
  requests.push_back(member.request);
  ODMOE_ASSIGN_OR_RETURN(const uint64_t total, TotalBytes(total_, requests));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<uint64_t> shares, ShareBudget(total, requests));
  ODMOE_RETURN_IF_ERROR(Redistribute(members, absl::MakeSpan(shares).first(members.size()),
                                     /*shrink_only=*/true, absl::Now() + kMakeRoom));
  OpenStoreOptions options;
  options.model_directory = model->directory;
  options.budget = {Budget::Kind::kBytes, shares.back(), 0.0};
  options.prefetch = options_.prefetch;
  options.policy = options_.policy;
  options.shadow_policies = options_.shadow_policies;
  options.use_memfd = true;
  options.source = source;
  options.tenants = options_.tenants;
  options.shared_disks = shared_disks_;
  options.huge_pages = options_.huge_pages;
  options.lock_memory = options_.lock_memory;
  if (options_.populated) {
    options.populated = [this, name = model->name](uint64_t bytes, uint64_t of_bytes) {
      options_.populated(name, bytes, of_bytes);
    };
  }
  ODMOE_ASSIGN_OR_RETURN(model->store, MakeExpertStore(std::move(experts), options, demand));
  ODMOE_RETURN_IF_ERROR(KeepWorkingSet(*model));
  model->opened = absl::Now();
  absl::MutexLock lock(&mutex_);
  members_.push_back(std::move(member));
  return model;
}

absl::Status StoreHost::KeepWorkingSet(HostedModel& model) const {
  if (options_.restart.directory.empty()) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(
      model.restart, WarmRestart::Start(*model.store, PosixFileSystem(), options_.restart));
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> StoreHost::TotalBytes(const Budget& total,
                                               absl::Span<const ShareRequest> requests) {
  if (total.kind == Budget::Kind::kBytes) {
    uint64_t others = closing_bytes_;
    absl::ReaderMutexLock lock(&mutex_);
    for (const Member& member : members_) {
      if (!member.shares) others += member.model->store->budget_bytes();
    }
    return total.bytes - std::min(total.bytes, others);
  }
  if (total.kind == Budget::Kind::kPercent) {
    uint64_t all = 0;
    for (const ShareRequest& request : requests) all += request.all_bytes;
    ODMOE_ASSIGN_OR_RETURN(const uint64_t bytes, ResolveBudget(total, all, 0));
    return bytes - std::min(bytes, closing_bytes_);
  }
  ODMOE_ASSIGN_OR_RETURN(uint64_t bytes, AutomaticBudgetBytes());
  for (const Member& member : Sharing()) bytes += member.model->store->arena().bytes();
  return bytes;
}

std::vector<StoreHost::Member> StoreHost::Sharing() const {
  absl::ReaderMutexLock lock(&mutex_);
  std::vector<Member> sharing;
  for (const Member& member : members_) {
    if (member.shares) sharing.push_back(member);
  }
  return sharing;
}

absl::Status StoreHost::Redistribute(const std::vector<Member>& members,
                                     absl::Span<const uint64_t> shares, bool shrink_only,
                                     absl::Time deadline) {
  std::vector<std::pair<CachingExpertStore*, uint64_t>> done;  // and what it had
  for (const bool growing : {false, true}) {
    if (growing && shrink_only) break;
    for (size_t i = 0; i < members.size(); ++i) {
      CachingExpertStore& store = *members[i].model->store;
      const uint64_t had = store.budget_bytes();
      if (shares[i] == had || (shares[i] > had) != growing) continue;
      const absl::Status status = store.Resize(shares[i], deadline);
      if (status.ok()) {
        done.emplace_back(&store, had);
        continue;
      }
      // Back the way it came, so that whoever grew shrinks first.
      for (auto undo = done.rbegin(); undo != done.rend(); ++undo) {
        undo->first->Resize(undo->second, absl::Now() + kMakeRoom).IgnoreError();
      }
      return absl::Status(status.code(),
                          absl::StrCat(members[i].model->name, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status StoreHost::Reshare(const Budget& total, const std::vector<Member>& members,
                                absl::Time deadline) {
  std::vector<ShareRequest> requests;
  for (const Member& member : members) requests.push_back(member.request);
  ODMOE_ASSIGN_OR_RETURN(const uint64_t bytes, TotalBytes(total, requests));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<uint64_t> shares, ShareBudget(bytes, requests));
  return Redistribute(members, shares, /*shrink_only=*/false, deadline);
}

void StoreHost::ShareAnew() {
  // Where it fails the models keep what they have, which is no more than before.
  Reshare(total_, Sharing(), absl::Now() + kMakeRoom).IgnoreError();
}

absl::Status StoreHost::Resize(absl::string_view name, const Budget& budget, absl::Time deadline) {
  absl::MutexLock changing(&change_mutex_);
  ODMOE_ASSIGN_OR_RETURN(const auto model, Find(name));
  std::vector<Member> members = Sharing();
  const auto found = std::find_if(members.begin(), members.end(),
                                  [&](const Member& member) { return member.model == model; });
  if (found == members.end()) {
    const ExpertCatalog& catalog = model->store->catalog();
    ODMOE_ASSIGN_OR_RETURN(
        const uint64_t bytes,
        ResolveBudget(budget, catalog.expert_count() * model->store->arena().shape().slot_bytes,
                      model->store->minimum_budget_bytes()));
    return model->store->Resize(bytes, deadline);
  }
  found->request.budget = budget;
  ODMOE_RETURN_IF_ERROR(Reshare(total_, members, deadline));
  absl::MutexLock lock(&mutex_);
  for (Member& member : members_) {
    if (member.model == model) member.request.budget = budget;
  }
  return absl::OkStatus();
}

absl::Status StoreHost::ResizeTotal(const Budget& budget, absl::Time deadline) {
  absl::MutexLock changing(&change_mutex_);
  ODMOE_RETURN_IF_ERROR(Reshare(budget, Sharing(), deadline));
  total_ = budget;
  return absl::OkStatus();
}

absl::Status StoreHost::Serve(std::string name, std::unique_ptr<CachingExpertStore> store) {
  Member member;
  member.model = std::make_shared<HostedModel>();
  member.model->name = std::move(name);
  member.model->store = std::move(store);
  member.model->opened = absl::Now();
  member.shares = false;
  ODMOE_RETURN_IF_ERROR(KeepWorkingSet(*member.model));
  absl::MutexLock lock(&mutex_);
  for (const Member& other : members_) {
    if (other.model->name == member.model->name) {
      return absl::FailedPreconditionError(absl::StrCat(other.model->name, " is open already"));
    }
  }
  members_.push_back(std::move(member));
  return absl::OkStatus();
}

absl::Status StoreHost::Close(absl::string_view name) {
  absl::MutexLock changing(&change_mutex_);
  std::shared_ptr<HostedModel> closed;
  {
    absl::MutexLock lock(&mutex_);
    ODMOE_ASSIGN_OR_RETURN(closed, FindLocked(name));
    ODMOE_ASSIGN_OR_RETURN(const StoreStats stats, closed->store->Stats());
    if (stats.clients > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat(closed->name, " is in use: ", stats.clients, " sessions are open on it"));
    }
    std::erase_if(members_, [&](const Member& member) { return member.model == closed; });
  }
  const uint64_t bytes = closed->store->arena().bytes();
  if (closed.use_count() == 1) {
    closed.reset();
    ShareAnew();
    return absl::OkStatus();
  }
  // Somebody streams an expert from it. Not left to them to destroy it: they would on a thread of
  // gRPC's, for which its source may have to wait.
  closing_bytes_ += bytes;
  closers_.Schedule([this, bytes, closed = std::move(closed)]() mutable {
    if (!AwaitUnused(closed)) return;
    absl::MutexLock changing(&change_mutex_);
    closed.reset();
    closing_bytes_ -= bytes;
    ShareAnew();
  });
  return absl::OkStatus();
}

bool StoreHost::AwaitUnused(const std::shared_ptr<HostedModel>& closed) {
  absl::MutexLock lock(&mutex_);
  while (closed.use_count() > 1) {
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kCloserPoll)) return false;
  }
  return true;
}

absl::StatusOr<std::shared_ptr<HostedModel>> StoreHost::Find(absl::string_view name) const {
  absl::ReaderMutexLock lock(&mutex_);
  return FindLocked(name);
}

absl::StatusOr<std::shared_ptr<HostedModel>> StoreHost::FindMeant(absl::string_view name,
                                                                  int64_t epoch,
                                                                  absl::string_view digest) const {
  ODMOE_ASSIGN_OR_RETURN(auto model, Find(name));
  const CachingExpertStore& store = *model->store;
  if (!digest.empty() && digest != store.catalog().model_digest()) {
    return absl::FailedPreconditionError(
        absl::StrCat("this store's experts are another model's: its digest is ",
                     store.catalog().model_digest(), ", expected ", digest));
  }
  if (epoch != 0 && epoch != store.epoch()) {
    return absl::AbortedError(absl::StrCat("epoch ", epoch, " has passed, it is now ",
                                           store.epoch(), "; start again"));
  }
  return model;
}

absl::StatusOr<std::shared_ptr<HostedModel>> StoreHost::FindLocked(absl::string_view name) const {
  if (name.empty()) {
    if (members_.size() == 1) return members_.front().model;
    if (members_.empty()) return absl::NotFoundError("no model is open");
    std::vector<std::string> names;
    for (const Member& member : members_) names.push_back(member.model->name);
    return absl::InvalidArgumentError(
        absl::StrCat("several models are open, name one: ", absl::StrJoin(names, ", ")));
  }
  for (const Member& member : members_) {
    if (member.model->name == name) return member.model;
  }
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
  std::vector<std::shared_ptr<HostedModel>> models;
  for (const Member& member : members_) models.push_back(member.model);
  return models;
}

}  // namespace odmoe
