#include "clients/cpp/remote_language_model.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/inference_proto.h"
#include "odmoe/inference/v1/inference_service.grpc.pb.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/core/rpc/cancel_call.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::inference::v1;
using inference_client::FromProto;
using inference_client::ToProto;
using Stub = v1::InferenceService::Stub;

// Of calls that have no deadline of their own. Tokenizing 16 MiB takes seconds, loading may read
// hundreds of gigabytes once.
constexpr absl::Duration kQuickTimeout = absl::Minutes(1);
constexpr absl::Duration kLoadTimeout = absl::Minutes(30);

// Protobuf drops a string that is not UTF-8 on the way, so what the service would refuse is refused
// here.
absl::Status CheckUtf8(absl::string_view field, absl::string_view text) {
  const size_t invalid = FirstInvalidUtf8(text);
  if (invalid == text.size()) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("not UTF-8 at byte ", invalid));
}

bool Cancelled(const CallOptions& call) {
  return call.cancellation != nullptr && call.cancellation->cancelled();
}

absl::Status CancelledByCaller() { return absl::CancelledError("cancelled by the caller"); }

class Connection {
 public:
  static absl::StatusOr<Connection> Dial(const std::string& endpoint) {
    ODMOE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, MakeChannel(endpoint));
    return Connection(endpoint, v1::InferenceService::NewStub(std::move(channel)));
  }

  Stub& stub() { return *stub_; }

  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response& response, const CallOptions& call) {
    if (Cancelled(call)) return CancelledByCaller();
    grpc::ClientContext context;
    SetDeadline(context, call.deadline);
    const CancelCall canceller(context, call.cancellation);
    return ToStatus(((*stub_).*method)(&context, request, &response), call);
  }

  // The outcome of a call, for its caller.
  absl::Status ToStatus(const grpc::Status& outcome, const CallOptions& call) const {
    absl::Status status = FromGrpcStatus(outcome);
    if (absl::IsCancelled(status) && !Cancelled(call)) {
      return absl::UnavailableError(
          absl::StrCat(endpoint_, ": the service ended the call: ", status.message()));
    }
    if (absl::IsUnavailable(status)) {
      return absl::UnavailableError(absl::StrCat(endpoint_, ": ", status.message()));
    }
    return status;
  }

 private:
  Connection(std::string endpoint, std::unique_ptr<Stub> stub)
      : endpoint_(std::move(endpoint)), stub_(std::move(stub)) {}

  std::string endpoint_;
  std::unique_ptr<Stub> stub_;
};

CallOptions Within(absl::Duration timeout) { return {.deadline = absl::Now() + timeout}; }

class RemoteLanguageModel final : public LanguageModel {
 public:
  RemoteLanguageModel(Connection connection, std::string model)
      : connection_(std::move(connection)), model_(std::move(model)) {}

  absl::StatusOr<ModelInfo> Info() override {
    v1::ModelInfoRequest request;
    request.set_model(model_);
    v1::ModelInfoResponse response;
    ODMOE_RETURN_IF_ERROR(
        connection_.Call(&Stub::ModelInfo, request, response, Within(kQuickTimeout)));
    return FromProto(response.model());
  }

  absl::StatusOr<std::vector<TokenId>> Tokenize(absl::string_view text,
                                                const TokenizeOptions& options) override {
    ODMOE_RETURN_IF_ERROR(CheckUtf8("text", text));
    v1::TokenizeRequest request;
    request.set_model(model_);
    request.set_text(std::string(text));
    request.set_no_special(!options.add_special);
    request.set_no_parse_special(!options.parse_special);
    v1::TokenizeResponse response;
    ODMOE_RETURN_IF_ERROR(
        connection_.Call(&Stub::Tokenize, request, response, Within(kQuickTimeout)));
    return std::vector<TokenId>(response.tokens().begin(), response.tokens().end());
  }

  absl::StatusOr<std::string> Detokenize(const std::vector<TokenId>& tokens) override {
    v1::DetokenizeRequest request;
    request.set_model(model_);
    request.mutable_tokens()->Add(tokens.begin(), tokens.end());
    v1::DetokenizeResponse response;
    ODMOE_RETURN_IF_ERROR(
        connection_.Call(&Stub::Detokenize, request, response, Within(kQuickTimeout)));
    return std::move(*response.mutable_text());
  }

  absl::StatusOr<GenerateSummary> Generate(const GenerateRequest& request, const CallOptions& call,
                                           const OnToken& on_token) override {
    if (request.experts) {
      return absl::UnimplementedError("a service does not tell the experts a generation chose");
    }
    ODMOE_RETURN_IF_ERROR(CheckUtf8("prompt.text", request.prompt.text));
    for (size_t i = 0; i < request.stop.size(); ++i) {
      ODMOE_RETURN_IF_ERROR(CheckUtf8(absl::StrCat("stop[", i, "]"), request.stop[i]));
    }
    if (Cancelled(call)) return CancelledByCaller();
    v1::GenerateRequest message = ToProto(request);
    message.set_model(model_);
    grpc::ClientContext context;
    SetDeadline(context, call.deadline);
    const CancelCall canceller(context, call.cancellation);
    const auto stream = connection_.stub().Generate(&context, message);
    const absl::Time start = absl::Now();
    int32_t received = 0;
    std::optional<v1::GenerateSummary> summary;
    v1::GenerateResponse response;
    while (stream->Read(&response)) {
      if (response.has_summary()) summary = std::move(*response.mutable_summary());
      if (!response.has_token()) continue;
      ++received;
      const bool more = on_token(FromProto(response.token()));
      if (more && !Cancelled(call)) continue;
      context.TryCancel();
      while (stream->Read(&response)) {
      }
      stream->Finish();  // CANCELLED, as just asked
      if (more) return CancelledByCaller();
      return KnownSummary(received, absl::Now() - start);
    }
    ODMOE_RETURN_IF_ERROR(connection_.ToStatus(stream->Finish(), call));
    if (!summary.has_value()) {
      return absl::InternalError("the service ended a generation without a summary");
    }
    return FromProto(*summary);
  }

  absl::StatusOr<ScoreResult> Score(const ScoreRequest& request,
                                    const CallOptions& call) override {
    ODMOE_RETURN_IF_ERROR(CheckUtf8("prompt.text", request.prompt.text));
    v1::ScoreRequest message;
    message.set_model(model_);
    *message.mutable_prompt() = ToProto(request.prompt);
    message.set_experts(request.experts);
    v1::ScoreResponse response;
    ODMOE_RETURN_IF_ERROR(connection_.Call(&Stub::Score, message, response, call));
    return FromProto(response);
  }

 private:
  static GenerateSummary KnownSummary(int32_t completion_tokens, absl::Duration took) {
    GenerateSummary summary;
    summary.finish_reason = FinishReason::kCancelled;
    summary.completion_tokens = completion_tokens;
    summary.timings.decode_ms = absl::ToDoubleMilliseconds(took);
    return summary;
  }

  Connection connection_;
  const std::string model_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LanguageModel>> ConnectLanguageModel(const std::string& endpoint,
                                                                    const std::string& model) {
  ODMOE_ASSIGN_OR_RETURN(Connection connection, Connection::Dial(endpoint));
  return std::make_unique<RemoteLanguageModel>(std::move(connection), model);
}

absl::StatusOr<ModelInfo> LoadModel(const std::string& endpoint, const std::string& path,
                                    int32_t context_length) {
  ODMOE_ASSIGN_OR_RETURN(Connection connection, Connection::Dial(endpoint));
  ODMOE_RETURN_IF_ERROR(CheckUtf8("path", path));
  v1::LoadModelRequest request;
  request.set_path(path);
  request.set_context_length(context_length);
  v1::LoadModelResponse response;
  ODMOE_RETURN_IF_ERROR(connection.Call(&Stub::LoadModel, request, response, Within(kLoadTimeout)));
  return FromProto(response.model());
}

absl::Status UnloadModel(const std::string& endpoint, const std::string& model) {
  ODMOE_ASSIGN_OR_RETURN(Connection connection, Connection::Dial(endpoint));
  v1::UnloadModelRequest request;
  request.set_model(model);
  v1::UnloadModelResponse response;
  return connection.Call(&Stub::UnloadModel, request, response, Within(kLoadTimeout));
}

absl::StatusOr<InferenceStats> GetInferenceStats(const std::string& endpoint) {
  ODMOE_ASSIGN_OR_RETURN(Connection connection, Connection::Dial(endpoint));
  v1::StatsResponse response;
  ODMOE_RETURN_IF_ERROR(
      connection.Call(&Stub::Stats, v1::StatsRequest(), response, Within(kQuickTimeout)));
  return FromProto(response);
}

}  // namespace odmoe
