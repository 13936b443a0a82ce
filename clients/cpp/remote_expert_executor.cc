#include "clients/cpp/remote_expert_executor.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/base/status_macros.h"
#include "services/core/kernels/simd.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage::v1;
using Stub = v1::ExpertStorageService::Stub;

// Counts an executor's calls. Calls end on gRPC's threads, and a channel must not: whoever drops
// the last reference to one waits for those threads. So an executor stays until its calls are gone.
class CallsUnderWay {
 public:
  void Begin() {
    absl::MutexLock lock(&mutex_);
    ++count_;
  }
  void End() {
    absl::MutexLock lock(&mutex_);
    --count_;
  }
  void AwaitNone() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(+[](int* count) { return *count == 0; }, &count_));
  }

 private:
  absl::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

// One call under way. Owns itself until gRPC is done with it.
class ExecuteCall final : public grpc::ClientReadReactor<v1::ExecuteResponse>,
                          public std::enable_shared_from_this<ExecuteCall> {
 public:
  ExecuteCall(std::shared_ptr<CallsUnderWay> calls, v1::ExecuteRequest request, int64_t dim)
      : calls_(std::move(calls)), request_(std::move(request)) {
    experts_.resize(request_.experts_size());
    for (int i = 0; i < request_.experts_size(); ++i) {
      const v1::ExecuteExpert& expert = request_.experts(i);
      position_.emplace(expert.expert(), i);
      experts_[i].floats = static_cast<size_t>(expert.tokens_size() * dim);
    }
  }

  void Start(Stub& stub, absl::Time deadline) {
    self_ = shared_from_this();
    calls_->Begin();
    SetDeadline(context_, deadline);
    stub.async()->Execute(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    const absl::Status status = Take();
    if (status.ok()) {
      StartRead(&response_);
      return;
    }
    context_.TryCancel();
    absl::MutexLock lock(&mutex_);
    end_ = status;
  }

  void OnDone(const grpc::Status& status) override {
    std::shared_ptr<ExecuteCall> self = std::move(self_);
    const std::shared_ptr<CallsUnderWay> calls = calls_;
    {
      absl::MutexLock lock(&mutex_);
      if (end_.ok()) end_ = FromGrpcStatus(status);
      done_ = true;
    }
    self = nullptr;
    calls->End();
  }

  // Nobody wants it any more.
  void Cancel() { context_.TryCancel(); }

  bool AwaitReady(size_t i, absl::Time until) {
    absl::MutexLock lock(&mutex_);
    const auto ready = [this, i]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return ReadyLocked(i); };
    return mutex_.AwaitWithDeadline(absl::Condition(&ready), until);
  }

  absl::StatusOr<absl::Span<const float>> Wait(size_t i) {
    AwaitReady(i, absl::InfiniteFuture());
    absl::MutexLock lock(&mutex_);
    const Expert& expert = experts_[i];
    if (expert.here) {
      ODMOE_RETURN_IF_ERROR(expert.status);
      return absl::MakeConstSpan(expert.output);
    }
    ODMOE_RETURN_IF_ERROR(end_);
    return absl::InternalError("the second host ended its answer without all experts");
  }

 private:
  struct Expert {
    size_t floats = 0;  // expected
    bool here = false;
    absl::Status status;
    std::vector<float> output;
  };

  bool ReadyLocked(size_t i) const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return experts_[i].here || done_;
  }

  absl::Status Take() {
    const auto found = position_.find(response_.expert());
    absl::MutexLock lock(&mutex_);
    if (found == position_.end() || experts_[found->second].here) {
      return absl::InternalError(
          absl::StrCat("the second host sent expert ", response_.expert(), " unasked"));
    }
    Expert& expert = experts_[found->second];
    const std::string& bytes = response_.output();
    if (response_.code() != 0) {
      expert.status = FromGrpcStatus(grpc::Status(
          static_cast<grpc::StatusCode>(response_.code()), response_.message()));
    } else if (bytes.size() != expert.floats * sizeof(float)) {
      return absl::InternalError(
          absl::StrCat("the second host sent ", bytes.size(), " bytes for expert ",
                       response_.expert(), ", expected ", expert.floats * sizeof(float)));
    } else {
      expert.output.resize(expert.floats);
      std::memcpy(expert.output.data(), bytes.data(), bytes.size());
    }
    expert.here = true;
    return absl::OkStatus();
  }

  const std::shared_ptr<CallsUnderWay> calls_;
  const v1::ExecuteRequest request_;
  absl::flat_hash_map<int32_t, size_t> position_;
  grpc::ClientContext context_;
  v1::ExecuteResponse response_;
  std::shared_ptr<ExecuteCall> self_;  // until OnDone

  absl::Mutex mutex_;
  std::vector<Expert> experts_ ABSL_GUARDED_BY(mutex_);  // sized for good by the constructor
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

class RemoteExecution final : public ExpertExecution {
 public:
  explicit RemoteExecution(std::shared_ptr<ExecuteCall> call) : call_(std::move(call)) {}
  ~RemoteExecution() override { call_->Cancel(); }
  bool Ready(size_t i) override { return call_->AwaitReady(i, absl::InfinitePast()); }
  bool AwaitReady(size_t i, absl::Time until) override { return call_->AwaitReady(i, until); }
  absl::StatusOr<absl::Span<const float>> Wait(size_t i) override { return call_->Wait(i); }

 private:
  const std::shared_ptr<ExecuteCall> call_;
};

class RemoteExpertExecutor final : public ExpertExecutor {
 public:
  RemoteExpertExecutor(std::shared_ptr<grpc::Channel> channel, std::string model,
                       ExpertCatalog catalog, const RemoteExecutorOptions& options)
      : stub_(v1::ExpertStorageService::NewStub(std::move(channel))),
        model_(std::move(model)),
        catalog_(std::move(catalog)),
        patience_(options.patience) {}

  ~RemoteExpertExecutor() override { calls_->AwaitNone(); }

  const ExpertCatalog& catalog() const override { return catalog_; }

  absl::StatusOr<std::unique_ptr<ExpertExecution>> Execute(
      int32_t layer, int64_t tokens, absl::Span<const float> hidden,
      absl::Span<const TokensOfExpert> experts, absl::Time deadline) override {
    const LayerExperts* layout = catalog_.FindLayer(layer);
    if (layout == nullptr) return absl::NotFoundError(absl::StrCat("no experts in layer ", layer));
    v1::ExecuteRequest request;
    request.set_model(model_);
    request.set_model_digest(catalog_.model_digest());
    request.set_kernel_target(Simd().target);
    request.set_layer(layer);
    request.set_token_count(static_cast<int32_t>(tokens));
    request.set_hidden(hidden.data(), hidden.size() * sizeof(float));
    uint64_t rows = 0;
    for (const TokensOfExpert& expert : experts) {
      v1::ExecuteExpert& message = *request.add_experts();
      message.set_expert(expert.expert);
      message.mutable_tokens()->Add(expert.tokens.begin(), expert.tokens.end());
      rows += expert.tokens.size();
    }
    const int64_t dim = layout->layout.w2.rows;
    if (tokens > kMaxTokens || rows * static_cast<uint64_t>(dim) * sizeof(float) > kMaxBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(tokens, " tokens, ", rows, " rows of output: more than a call takes"));
    }
    auto call = std::make_shared<ExecuteCall>(calls_, std::move(request), dim);
    call->Start(*stub_, std::min(deadline, absl::Now() + patience_));
    return std::make_unique<RemoteExecution>(std::move(call));
  }

 private:
  const std::unique_ptr<Stub> stub_;
  const std::shared_ptr<CallsUnderWay> calls_ = std::make_shared<CallsUnderWay>();
  const std::string model_;
  const ExpertCatalog catalog_;
  const absl::Duration patience_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<ExpertExecutor>> ConnectRemoteExecutor(
    const std::string& endpoint, const std::string& model, const RemoteExecutorOptions& options) {
  ODMOE_ASSIGN_OR_RETURN(const auto admin,
                         ExpertStorageAdmin::Connect(endpoint, absl::Seconds(10)));
  ODMOE_ASSIGN_OR_RETURN(auto description, admin->DescribeModel(model));
  if (description.compute_threads == 0) {
    return absl::UnimplementedError(absl::StrCat(
        "the store at ", endpoint, " computes no experts; start it with --compute-threads N"));
  }
  if (description.kernel_target != Simd().target) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the store at ", endpoint, " computes with ", description.kernel_target,
        ", this host with ", Simd().target, ": results would differ in the last bits"));
  }
  ODMOE_ASSIGN_OR_RETURN(auto channel, MakeChannel(endpoint));
  return std::make_shared<RemoteExpertExecutor>(std::move(channel), description.model.name,
                                                std::move(description.catalog), options);
}

absl::StatusOr<std::shared_ptr<ExpertExecutor>> ConnectRemoteExecutor(
    const std::string& endpoint, const std::string& model, RemoteMode mode, std::string& warning) {
  if (mode == RemoteMode::kFetch) return nullptr;
  auto executor = ConnectRemoteExecutor(endpoint, model);
  const bool unfit = absl::IsUnimplemented(executor.status()) ||
                     absl::IsFailedPrecondition(executor.status());
  if (mode == RemoteMode::kExecute || !unfit) return executor;
  warning = absl::StrCat(executor.status().message(), "; experts are fetched instead");
  return nullptr;
}

}  // namespace odmoe
