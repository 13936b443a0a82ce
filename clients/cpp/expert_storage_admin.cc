#include "clients/cpp/expert_storage_admin.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_proto.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/base/status_macros.h"
#include "services/core/codec/telemetry_codec.h"
#include "services/core/rpc/cancel_call.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage::v1;
using expert_storage_client::FromProto;
using expert_storage_client::ToProto;

uint64_t Unsigned(int64_t value) { return static_cast<uint64_t>(std::max<int64_t>(0, value)); }

absl::StatusOr<RemoteModel> FromProto(const v1::OpenedModel& proto) {
  RemoteModel model;
  model.name = proto.model();
  model.model_digest = proto.model_digest();
  model.epoch = proto.epoch();
  model.budget_bytes = Unsigned(proto.budget_bytes());
  model.slot_bytes = Unsigned(proto.slot_bytes());
  model.slot_count = Unsigned(proto.slot_count());
  model.expert_count = Unsigned(proto.expert_count());
  model.expert_bytes = Unsigned(proto.expert_bytes());
  model.max_batch = Unsigned(proto.max_batch());
  ODMOE_ASSIGN_OR_RETURN(model.source, expert_storage_client::FromProto(proto.source()));
  return model;
}

RemoteStoreStats StatsFromProto(const v1::StatsResponse& proto) {
  RemoteStoreStats stats;
  stats.model = proto.model();
  stats.epoch = proto.epoch();
  stats.store = expert_storage_client::FromProto(proto);
  stats.telemetry = odmoe::FromProto(proto.telemetry());
  stats.peak_rss_bytes = Unsigned(proto.peak_rss_bytes());
  stats.uptime = expert_storage_client::FromProto(proto.uptime());
  return stats;
}

class Admin final : public ExpertStorageAdmin {
 public:
  Admin(std::shared_ptr<grpc::Channel> channel, absl::Duration timeout)
      : stub_(v1::ExpertStorageService::NewStub(channel)), timeout_(timeout) {}

  absl::StatusOr<RemoteModel> OpenModel(const std::string& path, const Budget& budget,
                                        SourceKind source) override {
    v1::OpenModelRequest request;
    request.set_path(path);
    *request.mutable_budget() = ToProto(budget);
    request.set_source(ToProto(source));
    v1::OpenModelResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ExpertStorageService::Stub::OpenModel, request, response));
    return FromProto(response.model());
  }

  absl::Status CloseModel(const std::string& model) override {
    v1::CloseModelRequest request;
    request.set_model(model);
    v1::CloseModelResponse response;
    return Call(&v1::ExpertStorageService::Stub::CloseModel, request, response);
  }

  absl::StatusOr<std::vector<RemoteModel>> ResizeBudget(const std::string& model,
                                                        const Budget& budget,
                                                        absl::Duration timeout) override {
    v1::ResizeBudgetRequest request;
    request.set_model(model);
    return Resize(std::move(request), budget, timeout);
  }

  absl::StatusOr<std::vector<RemoteModel>> ResizeTotalBudget(const Budget& budget,
                                                             absl::Duration timeout) override {
    v1::ResizeBudgetRequest request;
    request.set_total(true);
    return Resize(std::move(request), budget, timeout);
  }

  absl::StatusOr<std::vector<RemoteModel>> ListModels() override {
    v1::ListModelsResponse response;
    ODMOE_RETURN_IF_ERROR(
        Call(&v1::ExpertStorageService::Stub::ListModels, v1::ListModelsRequest(), response));
    return Models(response.models());
  }

  absl::StatusOr<Description> DescribeModel(const std::string& model) override {
    v1::DescribeModelRequest request;
    request.set_model(model);
    v1::DescribeModelResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ExpertStorageService::Stub::DescribeModel, request, response));
    Description description;
    ODMOE_ASSIGN_OR_RETURN(description.model, FromProto(response.model()));
    std::vector<LayerExperts> layers;
    for (const v1::LayerExperts& proto : response.layers()) {
      ODMOE_ASSIGN_OR_RETURN(layers.emplace_back(), expert_storage_client::FromProto(proto));
    }
    ODMOE_ASSIGN_OR_RETURN(description.catalog, ExpertCatalog::Create(
                                                    response.model().model_digest(), layers));
    description.demand = Unsigned(response.demand_count());
    description.compute_threads = Unsigned(response.compute_thread_count());
    description.kernel_target = response.kernel_target();
    return description;
  }

  absl::StatusOr<RemoteStoreStats> Stats(const std::string& model, bool with_experts) override {
    v1::StatsRequest request;
    request.set_model(model);
    request.set_with_experts(with_experts);
    v1::StatsResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ExpertStorageService::Stub::Stats, request, response));
    return StatsFromProto(response);
  }

  absl::Status WatchStats(const std::string& model, absl::Duration interval, bool with_experts,
                          const Cancellation* cancellation,
                          const OnStats& on_stats) override {
    v1::WatchStatsRequest request;
    request.set_model(model);
    request.set_with_experts(with_experts);
    *request.mutable_interval() = ToProto(interval);
    grpc::ClientContext context;
    const auto reader = stub_->WatchStats(&context, request);
    const CancelCall cancel(context, cancellation);
    bool stopped = false;
    for (v1::WatchStatsResponse response; !stopped && reader->Read(&response);) {
      std::vector<RemoteStoreStats> models;
      for (const v1::StatsResponse& stats : response.stats()) {
        models.push_back(StatsFromProto(stats));
      }
      stopped = !on_stats(std::move(models));
    }
    if (stopped) context.TryCancel();
    const absl::Status status = FromGrpcStatus(reader->Finish());
    stopped = stopped || (cancellation != nullptr && cancellation->cancelled());
    return stopped ? absl::OkStatus() : status;
  }

 private:
  static absl::StatusOr<std::vector<RemoteModel>> Models(
      const google::protobuf::RepeatedPtrField<v1::OpenedModel>& protos) {
    std::vector<RemoteModel> models;
    for (const v1::OpenedModel& proto : protos) {
      ODMOE_ASSIGN_OR_RETURN(models.emplace_back(), FromProto(proto));
    }
    return models;
  }

  absl::StatusOr<std::vector<RemoteModel>> Resize(v1::ResizeBudgetRequest request,
                                                  const Budget& budget, absl::Duration timeout) {
    *request.mutable_budget() = ToProto(budget);
    *request.mutable_timeout() = ToProto(timeout);
    v1::ResizeBudgetResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ExpertStorageService::Stub::ResizeBudget, request, response));
    return Models(response.models());
  }

  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::ExpertStorageService::Stub::*method)(grpc::ClientContext*,
                                                                           const Request&,
                                                                           Response*),
                    const Request& request, Response& response) {
    grpc::ClientContext context;
    SetDeadline(context, absl::Now() + timeout_);
    return FromGrpcStatus(((*stub_).*method)(&context, request, &response));
  }

  const std::unique_ptr<v1::ExpertStorageService::Stub> stub_;
  const absl::Duration timeout_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertStorageAdmin>> ExpertStorageAdmin::Connect(
    const std::string& endpoint, absl::Duration timeout) {
  ODMOE_ASSIGN_OR_RETURN(auto channel, MakeChannel(endpoint));
  return std::make_unique<Admin>(std::move(channel), timeout);
}

}  // namespace odmoe
