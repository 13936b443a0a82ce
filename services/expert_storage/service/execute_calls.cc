#include "services/expert_storage/service/execute_calls.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/rpc/status_codec.h"
#include "services/expert_storage/service/proto_convert.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage_proto;

// How long a call without a deadline of its own waits for its experts.
constexpr absl::Duration kLongestCall = absl::Minutes(1);

// A request in the library's terms, which point into it and into the message.
struct ParsedExecute {
  std::vector<float> hidden;
  std::vector<TokensOfExpert> experts;
  ExpertComputer::Request request;
};

absl::Status ParseExecute(const v1::ExecuteRequest& message, ParsedExecute& parsed) {
  if (message.hidden().size() % sizeof(float) != 0) {
    return InvalidField("hidden", absl::StrCat(message.hidden().size(), " bytes, expected floats"));
  }
  // Copied, since a message's bytes have no alignment. Hosts are little-endian, as files are.
  parsed.hidden.resize(message.hidden().size() / sizeof(float));
  if (!parsed.hidden.empty()) {
    std::memcpy(parsed.hidden.data(), message.hidden().data(), message.hidden().size());
  }
  parsed.experts.reserve(message.experts_size());
  for (const v1::ExecuteExpert& expert : message.experts()) {
    parsed.experts.push_back({expert.expert(),
                              {expert.tokens().data(), static_cast<size_t>(expert.tokens_size())}});
  }
  parsed.request.layer = message.layer();
  parsed.request.tokens = message.token_count();
  parsed.request.hidden = parsed.hidden;
  parsed.request.experts = parsed.experts;
  return absl::OkStatus();
}

absl::Status CheckKernels(const v1::ExecuteRequest& request) {
  if (request.kernel_target().empty() ||
      request.kernel_target() == ExpertComputer::kernel_target()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("this host computes with ", ExpertComputer::kernel_target(), ", the caller ",
                   "with ", request.kernel_target(), ": results would differ in the last bits"));
}

v1::ExecuteResponse ResponseOf(int32_t expert, const absl::StatusOr<absl::Span<const float>>& out) {
  v1::ExecuteResponse response;
  response.set_expert(expert);
  if (out.ok()) {
    response.set_output(out->data(), out->size() * sizeof(float));
  } else {
    response.set_code(static_cast<int32_t>(out.status().code()));
    response.set_message(std::string(out.status().message()));
  }
  return response;
}

}  // namespace

ExecuteCalls::ExecuteCalls(StoreHost& models, int compute_threads, absl::Duration patience)
    : models_(models), patience_(patience), pool_(kRunning) {
  if (compute_threads > 0) computer_ = std::make_unique<ExpertComputer>(compute_threads);
}

ExecuteCalls::~ExecuteCalls() = default;

ExecuteCalls::Writer* ExecuteCalls::Start(grpc::CallbackServerContext* context,
                                          const v1::ExecuteRequest* request) {
  // Counted from here on, and refused here: what waits holds memory too.
  if (calls_.fetch_add(1) >= kMostCalls) {
    calls_.fetch_sub(1);
    return RefuseStream<v1::ExecuteResponse>(absl::ResourceExhaustedError(
        absl::StrCat(kMostCalls, " calls are under way or wait; try again")));
  }
  return ServeStream<v1::ExecuteResponse>(
      context, pool_,
      [this, request](StreamWriter<v1::ExecuteResponse>& out) {
        const auto leave = absl::MakeCleanup([this] { calls_.fetch_sub(1); });
        return Run(*request, out);
      },
      patience_);
}

absl::Status ExecuteCalls::Run(const v1::ExecuteRequest& request,
                               StreamWriter<v1::ExecuteResponse>& out) {
  if (computer_ == nullptr) {
    return absl::UnimplementedError(
        "this store computes no experts; start it with --compute-threads N");
  }
  ODMOE_RETURN_IF_ERROR(CheckName("model", request.model()));
  ODMOE_ASSIGN_OR_RETURN(
      const auto model, models_.FindMeant(request.model(), request.epoch(),
                                          request.model_digest()));
  CachingExpertStore& store = *model->store;
  ODMOE_RETURN_IF_ERROR(CheckKernels(request));
  ParsedExecute parsed;
  ODMOE_RETURN_IF_ERROR(ParseExecute(request, parsed));
  ODMOE_RETURN_IF_ERROR(ExpertComputer::Check(store.catalog(), parsed.request));
  parsed.request.deadline = std::min(out.call().deadline, absl::Now() + kLongestCall);
  parsed.request.cancellation = out.call().cancellation;
  return computer_->Run(store, parsed.request,
                        [&](size_t i, absl::StatusOr<absl::Span<const float>> output) {
                          return out.Write(ResponseOf(parsed.experts[i].expert, output));
                        });
}

}  // namespace odmoe
