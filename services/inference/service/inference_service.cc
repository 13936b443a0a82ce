#include "services/inference/service/inference_service.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "odmoe/inference/v1/inference_service.grpc.pb.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/thread_pool.h"
#include "services/core/http/metric_families.h"
#include "services/core/rpc/serve_unary.h"
#include "services/core/rpc/server_stream.h"
#include "services/inference/service/inference_metrics.h"
#include "services/inference/service/model_host.h"
#include "services/inference/service/proto_convert.h"
#include "services/inference/service/request_counters.h"
#include "spdlog/spdlog.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::inference::v1;

// Calls that do not run the model; a long text keeps a thread busy for seconds.
constexpr size_t kQuickThreads = 16;
// Clients take messages of 20 MiB at most.
constexpr size_t kMaxScoreBytes = size_t{19} << 20;

// Worth an operator's look; what a caller did wrong is not.
bool IsServersFault(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kUnknown:
      return true;
    default:
      return false;
  }
}

absl::Status Logged(const char* method, absl::Status status) {
  if (IsServersFault(status)) spdlog::warn("{}: {}", method, status.ToString());
  return status;
}

CallOptions CallOptionsOf(const ServerCall& call) {
  return {.deadline = call.deadline, .cancellation = call.cancellation};
}

class Service final : public InferenceService, public v1::InferenceService::CallbackService {
 public:
  Service(InferenceServiceOptions options, PathRoots roots)
      : max_calls_(options.max_calls),
        host_(std::move(options.open_model), std::move(roots)),
        counters_(options.max_calls),
        quick_threads_(kQuickThreads),
        model_threads_(static_cast<size_t>(options.max_calls)) {
    host_.set_on_change([this] { ReportReadiness(); });
  }

  grpc::Service* grpc_service() override { return this; }

  absl::StatusOr<odmoe::ModelInfo> LoadModel(const std::string& path,
                                             int32_t context_length) override {
    ODMOE_RETURN_IF_ERROR(CheckAdmission());
    const absl::Time start = absl::Now();
    auto info = host_.Load(path, context_length);
    if (info.ok()) {
      spdlog::info("model {} is loaded, in {}", info->name,
                   absl::FormatDuration(absl::Now() - start));
    }
    return info;
  }

  void ObserveReadiness(std::function<void(bool)> observer) override {
    {
      absl::MutexLock lock(&observer_mutex_);
      observer_ = std::move(observer);
    }
    ReportReadiness();
  }

  std::string MetricsText() const override {
    return InferenceMetricsText(counters_.Totals(), host_.Info()) + ProcessMetricsText();
  }

  void StopAdmission() override {
    stopped_ = true;
    ReportReadiness();
  }

  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* context,
                                      const v1::LoadModelRequest* request,
                                      v1::LoadModelResponse* response) override {
    return ServeUnary(context, quick_threads_, [=, this](const ServerCall&) {
      return Logged("LoadModel", Load(*request, *response));
    });
  }

  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context,
                                        const v1::UnloadModelRequest* request,
                                        v1::UnloadModelResponse*) override {
    return ServeUnary(context, quick_threads_, [=, this](const ServerCall& call) {
      return host_.Unload(request->model(), CallOptionsOf(call));
    });
  }

  grpc::ServerUnaryReactor* ModelInfo(grpc::CallbackServerContext* context,
                                      const v1::ModelInfoRequest* request,
                                      v1::ModelInfoResponse* response) override {
    return ServeUnary(context, quick_threads_, [=, this](const ServerCall&) {
      return Describe(*request, *response);
    });
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    return ServeUnary(context, quick_threads_, [=, this](const ServerCall&) {
      return Logged("Tokenize", Encode(*request, *response));
    });
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    return ServeUnary(context, quick_threads_, [=, this](const ServerCall&) {
      return Logged("Detokenize", Decode(*request, *response));
    });
  }

  // A call too many is refused at once, on a thread that no running call holds.
  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    const bool admitted = counters_.Admit(RequestKind::kGenerate);
    return ServeStream<v1::GenerateResponse>(
        context, admitted ? model_threads_ : quick_threads_,
        [=, this](StreamWriter<v1::GenerateResponse>& out) {
          if (!admitted) return TooManyCalls();
          RequestCounters::Request counted(counters_, RequestKind::kGenerate);
          return counted.End(Logged("Generate", Continue(*request, counted, out)));
        });
  }

  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override {
    const bool admitted = counters_.Admit(RequestKind::kScore);
    return ServeUnary(context, admitted ? model_threads_ : quick_threads_,
                      [=, this](const ServerCall& call) {
                        if (!admitted) return TooManyCalls();
                        RequestCounters::Request counted(counters_, RequestKind::kScore);
                        return counted.End(
                            Logged("Score", Rate(*request, call, counted, *response)));
                      });
  }

  grpc::ServerUnaryReactor* Stats(grpc::CallbackServerContext* context, const v1::StatsRequest*,
                                  v1::StatsResponse* response) override {
    return ServeUnary(context, quick_threads_, [=, this](const ServerCall&) {
      Count(*response);
      return absl::OkStatus();
    });
  }

 private:
  absl::Status CheckAdmission() const {
    if (!stopped_) return absl::OkStatus();
    return absl::UnavailableError("the service is shutting down");
  }

  absl::Status TooManyCalls() const {
    return absl::ResourceExhaustedError(
        absl::StrCat(max_calls_, " calls are running or waiting already"));
  }

  void ReportReadiness() {
    // Under the lock, so that reports arrive in the order of what they say.
    absl::MutexLock lock(&observer_mutex_);
    if (observer_) observer_(host_.loaded() && !stopped_);
  }

  absl::Status Load(const v1::LoadModelRequest& request, v1::LoadModelResponse& response) {
    ODMOE_RETURN_IF_ERROR(CheckRequest(request));
    ODMOE_ASSIGN_OR_RETURN(const odmoe::ModelInfo info,
                           LoadModel(request.path(), request.context_length()));
    *response.mutable_model() = ToProto(info);
    return absl::OkStatus();
  }

  absl::Status Describe(const v1::ModelInfoRequest& request, v1::ModelInfoResponse& response) {
    ODMOE_ASSIGN_OR_RETURN(const ModelHost::Use use, host_.Get(request.model()));
    *response.mutable_model() = ToProto(use.info());
    return absl::OkStatus();
  }

  absl::Status Encode(const v1::TokenizeRequest& request, v1::TokenizeResponse& response) {
    ODMOE_ASSIGN_OR_RETURN(const ModelHost::Use use, host_.Get(request.model()));
    ODMOE_ASSIGN_OR_RETURN(const TokenizeOptions options, FromProto(request));
    ODMOE_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                           use.model().Tokenize(request.text(), options));
    response.mutable_tokens()->Add(tokens.begin(), tokens.end());
    return absl::OkStatus();
  }

  absl::Status Decode(const v1::DetokenizeRequest& request, v1::DetokenizeResponse& response) {
    ODMOE_ASSIGN_OR_RETURN(const ModelHost::Use use, host_.Get(request.model()));
    ODMOE_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, FromProto(request, use.info()));
    ODMOE_ASSIGN_OR_RETURN(*response.mutable_text(), use.model().Detokenize(tokens));
    return absl::OkStatus();
  }

  absl::Status Continue(const v1::GenerateRequest& message, RequestCounters::Request& counted,
                        StreamWriter<v1::GenerateResponse>& out) {
    ODMOE_RETURN_IF_ERROR(CheckAdmission());
    ODMOE_ASSIGN_OR_RETURN(const ModelHost::Use use, host_.Get(message.model()));
    ODMOE_ASSIGN_OR_RETURN(const GenerateRequest request, FromProto(message, use.info()));
    CallOptions call = CallOptionsOf(out.call());
    call.on_started = [&] { counted.Start(); };
    v1::GenerateResponse response;
    ODMOE_ASSIGN_OR_RETURN(const GenerateSummary summary,
                           use.model().Generate(request, call, [&](const TokenEvent& event) {
                             counted.AddCompletionToken();
                             *response.mutable_token() = ToProto(event);
                             return out.Write(response);
                           }));
    counted.AddCost(summary.prompt_tokens, summary.timings, summary.experts);
    *response.mutable_summary() = ToProto(summary);
    if (!out.Write(response)) return absl::CancelledError("the client has left");
    return absl::OkStatus();
  }

  absl::Status Rate(const v1::ScoreRequest& message, const ServerCall& server_call,
                    RequestCounters::Request& counted, v1::ScoreResponse& response) {
    ODMOE_RETURN_IF_ERROR(CheckAdmission());
    ODMOE_ASSIGN_OR_RETURN(const ModelHost::Use use, host_.Get(message.model()));
    ODMOE_ASSIGN_OR_RETURN(const ScoreRequest request, FromProto(message, use.info()));
    CallOptions call = CallOptionsOf(server_call);
    call.on_started = [&] { counted.Start(); };
    ODMOE_ASSIGN_OR_RETURN(const ScoreResult result, use.model().Score(request, call));
    counted.AddCost(static_cast<int64_t>(result.tokens.size()), result.timings, result.expert_use);
    response = ToProto(result);
    const size_t bytes = response.ByteSizeLong();
    if (bytes <= kMaxScoreBytes) return absl::OkStatus();
    response.Clear();
    return absl::ResourceExhaustedError(absl::StrFormat(
        "the answer has %d bytes, at most %d fit a message; score a shorter text", bytes,
        kMaxScoreBytes));
  }

  void Count(v1::StatsResponse& response) const {
    const RequestTotals totals = counters_.Totals();
    response.set_requests_running(totals.running);
    response.set_requests_waiting(totals.waiting);
    response.set_requests(totals.ended);
    response.set_prompt_tokens(totals.prompt_tokens);
    response.set_completion_tokens(totals.completion_tokens);
    *response.mutable_experts() = ToProto(totals.experts);
    response.set_peak_rss_bytes(static_cast<int64_t>(PeakRssBytes()));
    absl::Duration rest = absl::Now() - start_;
    response.mutable_uptime()->set_seconds(absl::IDivDuration(rest, absl::Seconds(1), &rest));
    response.mutable_uptime()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  }

  const int max_calls_;
  const absl::Time start_ = absl::Now();
  std::atomic<bool> stopped_ = false;
  absl::Mutex observer_mutex_;
  std::function<void(bool)> observer_ ABSL_GUARDED_BY(observer_mutex_);
  ModelHost host_;
  RequestCounters counters_;
  // Last, so that their threads are gone before the rest.
  ThreadPool quick_threads_;
  ThreadPool model_threads_;
};

}  // namespace

const char* InferenceService::Name() { return v1::InferenceService::service_full_name(); }

absl::StatusOr<std::unique_ptr<InferenceService>> InferenceService::Create(
    InferenceServiceOptions options) {
  if (options.roots.empty()) {
    return absl::InvalidArgumentError("no root: a folder that models may lie in is needed");
  }
  if (options.max_calls < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_calls: 1 or more, got ", options.max_calls));
  }
  ODMOE_ASSIGN_OR_RETURN(PathRoots roots, PathRoots::Create(options.roots));
  return std::make_unique<Service>(std::move(options), std::move(roots));
}

}  // namespace odmoe
