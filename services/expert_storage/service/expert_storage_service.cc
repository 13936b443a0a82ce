#include "services/expert_storage/service/expert_storage_service.h"

#include <algorithm>
#include <utility>

#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/base/status_macros.h"
#include "services/core/rpc/serve_unary.h"
#include "services/core/rpc/status_codec.h"
#include "services/expert_storage/service/descriptor_server.h"
#include "services/expert_storage/service/execute_calls.h"
#include "services/expert_storage/service/proto_convert.h"
#include "services/expert_storage/service/read_expert_stream.h"
#include "services/expert_storage/service/session.h"
#include "services/expert_storage/service/stats_watches.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage_proto;
using Context = grpc::CallbackServerContext;
using Unary = grpc::ServerUnaryReactor;
// ReadExpert writes raw bytes around the arena's memory.
using Contract = v1::ExpertStorageService::WithRawCallbackMethod_ReadExpert<
    v1::ExpertStorageService::CallbackService>;

// How long pins are waited for where the caller does not say.
constexpr absl::Duration kResizeTimeout = absl::Seconds(30);

v1::OpenedModel OpenedModelOf(const HostedModel& model) {
  const CachingExpertStore& store = *model.store;
  v1::OpenedModel proto;
  proto.set_model(model.name);
  proto.set_model_digest(store.catalog().model_digest());
  proto.set_epoch(store.epoch());
  proto.set_budget_bytes(static_cast<int64_t>(store.budget_bytes()));
  proto.set_slot_bytes(static_cast<int64_t>(store.arena().shape().slot_bytes));
  proto.set_slot_count(static_cast<int64_t>(store.arena().slot_count()));
  proto.set_expert_count(store.catalog().expert_count());
  proto.set_expert_bytes(static_cast<int64_t>(store.catalog().total_bytes()));
  proto.set_source(ToProto(model.source));
  proto.set_max_batch(static_cast<int64_t>(store.max_batch()));
  return proto;
}

class Service final : public Contract, public ExpertStorageServer {
 public:
  Service(StoreHost& models, std::unique_ptr<DescriptorServer> descriptors,
          const ExpertStorageServiceOptions& options)
      : models_(models),
        descriptors_(std::move(descriptors)),
        watches_(models),
        stream_patience_(options.stream_patience),
        executor_(options.threads),
        execute_(models, options.compute_threads, options.stream_patience) {}

  grpc::Service* service() override { return this; }
  void Drain() override {
    watches_.Drain();
    sessions_.Drain();
  }

  Unary* OpenModel(Context* context, const v1::OpenModelRequest* request,
                   v1::OpenModelResponse* response) override {
    return ServeChange(context, [this, request, response](const ServerCall&) {
      return Open(*request, *response);
    });
  }

  Unary* CloseModel(Context* context, const v1::CloseModelRequest* request,
                    v1::CloseModelResponse*) override {
    return ServeChange(context, [this, request](const ServerCall&) -> absl::Status {
      ODMOE_RETURN_IF_ERROR(CheckName("model", request->model()));
      return models_.Close(request->model());
    });
  }

  Unary* ResizeBudget(Context* context, const v1::ResizeBudgetRequest* request,
                      v1::ResizeBudgetResponse* response) override {
    return ServeChange(context, [this, request, response](const ServerCall& call) {
      return Resize(*request, call.deadline, *response);
    });
  }

  Unary* ListModels(Context* context, const v1::ListModelsRequest*,
                    v1::ListModelsResponse* response) override {
    return ServeUnary(context, executor_, [this, response](const ServerCall&) {
      for (const auto& model : models_.List()) *response->add_models() = OpenedModelOf(*model);
      return absl::OkStatus();
    });
  }

  Unary* DescribeModel(Context* context, const v1::DescribeModelRequest* request,
                       v1::DescribeModelResponse* response) override {
    return ServeUnary(context, executor_,
                      [this, request, response](const ServerCall&) -> absl::Status {
                        ODMOE_RETURN_IF_ERROR(CheckName("model", request->model()));
                        ODMOE_ASSIGN_OR_RETURN(const auto model, models_.Find(request->model()));
                        *response->mutable_model() = OpenedModelOf(*model);
                        for (const LayerExperts& layer : model->store->catalog().layers()) {
                          *response->add_layers() = ToProto(layer);
                        }
                        response->set_demand_count(static_cast<int64_t>(model->store->demand()));
                        response->set_compute_thread_count(execute_.compute_threads());
                        response->set_kernel_target(ExpertComputer::kernel_target());
                        return absl::OkStatus();
                      });
  }

  ExecuteCalls::Writer* Execute(Context* context, const v1::ExecuteRequest* request) override {
    return execute_.Start(context, request);
  }

  Unary* Stats(Context* context, const v1::StatsRequest* request,
               v1::StatsResponse* response) override {
    return ServeUnary(context, executor_, [this, request, response](const ServerCall&) {
      return FillStats(models_, *request, *response);
    });
  }

  grpc::ServerWriteReactor<v1::WatchStatsResponse>* WatchStats(
      Context*, const v1::WatchStatsRequest* request) override {
    return watches_.Start(*request);
  }

  grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>* Session(Context*) override {
    return odmoe::Session::Start({models_, *descriptors_, executor_, sessions_});
  }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* ReadExpert(Context* context,
                                                         const grpc::ByteBuffer* request) override {
    return ReadExpertStream::Start(context, *request, models_, executor_, stream_patience_);
  }

 private:
  // Changes of models run one at a time (StoreHost) and take what time they must: on a thread of
  // their own, since those of the executor are what sessions are served by.
  template <typename Handler>
  Unary* ServeChange(Context* context, Handler handler) {
    return ServeUnary(context, changes_, [handler](const ServerCall& call) -> absl::Status {
      // Others' changes have taken longer than its caller would wait.
      if (call.cancellation->cancelled()) return absl::CancelledError("the caller is gone");
      return handler(call);
    });
  }

  absl::Status Open(const v1::OpenModelRequest& request, v1::OpenModelResponse& response) {
    ODMOE_RETURN_IF_ERROR(CheckOpenModel(request));
    ODMOE_ASSIGN_OR_RETURN(const Budget budget, FromProto(request.budget()));
    ODMOE_ASSIGN_OR_RETURN(const SourceKind source, FromProto(request.source()));
    ODMOE_ASSIGN_OR_RETURN(const auto model,
                           models_.OpenForClient(request.path(), budget, source));
    *response.mutable_model() = OpenedModelOf(*model);
    return absl::OkStatus();
  }

  absl::Status Resize(const v1::ResizeBudgetRequest& request, absl::Time call_deadline,
                      v1::ResizeBudgetResponse& response) {
    ODMOE_RETURN_IF_ERROR(CheckName("model", request.model()));
    if (request.total() && !request.model().empty()) {
      return InvalidField("total", "a model is named too, expected one of the two");
    }
    ODMOE_ASSIGN_OR_RETURN(const Budget budget, FromProto(request.budget()));
    absl::Duration timeout = kResizeTimeout;
    if (request.has_timeout()) {
      ODMOE_ASSIGN_OR_RETURN(timeout, TimeoutFromProto("timeout", request.timeout()));
    }
    const absl::Time deadline = std::min(call_deadline, absl::Now() + timeout);
    ODMOE_RETURN_IF_ERROR(request.total() ? models_.ResizeTotal(budget, deadline)
                                          : models_.Resize(request.model(), budget, deadline));
    for (const auto& model : models_.List()) *response.add_models() = OpenedModelOf(*model);
    return absl::OkStatus();
  }

  StoreHost& models_;
  const std::unique_ptr<DescriptorServer> descriptors_;
  SessionSet sessions_;
  StatsWatches watches_;
  const absl::Duration stream_patience_;
  ThreadPool executor_;
  ThreadPool changes_{1};
  ExecuteCalls execute_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertStorageServer>> ExpertStorageServer::Create(
    StoreHost& models, const ExpertStorageServiceOptions& options) {
  ODMOE_ASSIGN_OR_RETURN(auto descriptors, DescriptorServer::Start(options.socket_directory));
  return std::make_unique<Service>(models, std::move(descriptors), options);
}

const char* ExpertStorageServer::Name() { return v1::ExpertStorageService::service_full_name(); }

}  // namespace odmoe
