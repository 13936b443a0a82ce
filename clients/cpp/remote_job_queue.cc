#include "clients/cpp/remote_job_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/retry_patience.h"
#include "odmoe/conversion/v1/conversion_service.grpc.pb.h"
#include "services/core/base/status_macros.h"
#include "services/core/codec/job_codec.h"
#include "services/core/rpc/cancel_call.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;

// Planning reads a source's headers, which may be on a slow disk.
constexpr absl::Duration kCallTimeout = absl::Seconds(60);

class RemoteJobQueue : public JobQueue {
 public:
  explicit RemoteJobQueue(std::shared_ptr<grpc::Channel> channel)
      : stub_(v1::ConversionService::NewStub(std::move(channel))) {}

  absl::StatusOr<Job> Submit(const JobSpec& spec, absl::string_view request_id) override {
    v1::SubmitJobRequest request;
    *request.mutable_spec() = ToProto(spec);
    request.set_request_id(std::string(request_id));
    v1::SubmitJobResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ConversionService::Stub::SubmitJob, request, response));
    return FromProto(response.job());
  }

  absl::StatusOr<Job> Get(absl::string_view id) override {
    return CallFor<v1::GetJobRequest, v1::GetJobResponse>(&v1::ConversionService::Stub::GetJob, id);
  }

  absl::StatusOr<std::vector<Job>> List(int limit) override {
    if (limit < 1)
      return absl::InvalidArgumentError(absl::StrCat("limit ", limit, " is not positive"));
    v1::ListJobsRequest request;
    request.set_page_size(limit);
    v1::ListJobsResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ConversionService::Stub::ListJobs, request, response));
    std::vector<Job> jobs;
    for (const v1::Job& message : response.jobs()) {
      ODMOE_ASSIGN_OR_RETURN(Job job, FromProto(message));
      jobs.push_back(std::move(job));
    }
    return jobs;
  }

  absl::StatusOr<Job> Cancel(absl::string_view id) override {
    return CallFor<v1::CancelJobRequest, v1::CancelJobResponse>(
        &v1::ConversionService::Stub::CancelJob, id);
  }

  absl::StatusOr<Job> Pause(absl::string_view id) override {
    return CallFor<v1::PauseJobRequest, v1::PauseJobResponse>(
        &v1::ConversionService::Stub::PauseJob, id);
  }

  absl::StatusOr<Job> Resume(absl::string_view id) override {
    return CallFor<v1::ResumeJobRequest, v1::ResumeJobResponse>(
        &v1::ConversionService::Stub::ResumeJob, id);
  }

  absl::StatusOr<Job> Retry(absl::string_view id) override {
    return CallFor<v1::RetryJobRequest, v1::RetryJobResponse>(
        &v1::ConversionService::Stub::RetryJob, id);
  }

  absl::Status Delete(absl::string_view id) override {
    v1::DeleteJobRequest request;
    request.set_job_id(std::string(id));
    v1::DeleteJobResponse response;
    return Call(&v1::ConversionService::Stub::DeleteJob, request, response);
  }

  absl::StatusOr<Job> Watch(absl::string_view id, const WatchOptions& options,
                            const std::function<bool(const Job&)>& on_change) override;

 private:
  // What a watch has seen so far, over its connections.
  struct WatchState {
    int64_t version;
    std::optional<Job> last;
    bool stopped = false;  // by on_change
  };

  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::ConversionService::Stub::*method)(grpc::ClientContext*,
                                                                        const Request&, Response*),
                    const Request& request, Response& response) {
    grpc::ClientContext context;
    SetDeadline(context, absl::Now() + kCallTimeout);
    return FromGrpcStatus((stub_.get()->*method)(&context, request, &response));
  }

  // A call whose request is a job's id and whose answer the job.
  template <typename Request, typename Response>
  absl::StatusOr<Job> CallFor(grpc::Status (v1::ConversionService::Stub::*method)(
                                  grpc::ClientContext*, const Request&, Response*),
                              absl::string_view id) {
    Request request;
    request.set_job_id(std::string(id));
    Response response;
    ODMOE_RETURN_IF_ERROR(Call(method, request, response));
    return FromProto(response.job());
  }

  absl::Status WatchOnce(absl::string_view id, const Cancellation* cancellation,
                         const std::function<bool(const Job&)>& on_change, WatchState& state);

  const std::unique_ptr<v1::ConversionService::Stub> stub_;
};

absl::Status RemoteJobQueue::WatchOnce(absl::string_view id, const Cancellation* cancellation,
                                       const std::function<bool(const Job&)>& on_change,
                                       WatchState& state) {
  v1::WatchJobRequest request;
  request.set_job_id(std::string(id));
  if (state.version >= 0) request.set_after_version(state.version);
  grpc::ClientContext context;
  const std::unique_ptr<grpc::ClientReader<v1::WatchJobResponse>> reader =
      stub_->WatchJob(&context, request);
  CancelCall cancel(context, cancellation);
  v1::WatchJobResponse response;
  absl::Status bad;
  while (!state.stopped && reader->Read(&response)) {
    absl::StatusOr<Job> job = FromProto(response.job());
    if (!job.ok()) {
      bad = job.status();
      break;
    }
    state.version = job->version;
    state.last = *job;
    state.stopped = !on_change(*job);
  }
  if (state.stopped || !bad.ok()) context.TryCancel();
  const absl::Status status = FromGrpcStatus(reader->Finish());
  if (!bad.ok()) return bad;
  return state.stopped ? absl::OkStatus() : status;
}

absl::StatusOr<Job> RemoteJobQueue::Watch(absl::string_view id, const WatchOptions& options,
                                          const std::function<bool(const Job&)>& on_change) {
  WatchState state{options.after_version};
  RetryPatience patience(options.cancellation);
  while (true) {
    const int64_t seen = state.version;
    const absl::Status status = WatchOnce(id, options.cancellation, on_change, state);
    if (patience.cancelled()) return absl::CancelledError("the watch was given up");
    if (status.ok()) {
      if (state.last) return *state.last;
      return Get(id);  // it had ended, and `after_version` was its end
    }
    if (state.version != seen) patience.Renew();
    if (!absl::IsUnavailable(status) || patience.exhausted()) return status;
    if (patience.fresh() && options.on_interrupted) options.on_interrupted(status);
    patience.Pause();
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobQueue>> ConnectJobQueue(const std::string& endpoint) {
  ODMOE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, MakeChannel(endpoint));
  return std::make_unique<RemoteJobQueue>(std::move(channel));
}

}  // namespace odmoe
