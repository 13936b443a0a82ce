#include "clients/cpp/remote_job_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/protobuf/util/time_util.h"
#include "odmoe/conversion/v1/conversion_service.grpc.pb.h"
#include "services/core/base/status_macros.h"
#include "services/core/rpc/cancel_call.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;

// Planning reads a source's headers, which may be on a slow disk.
constexpr absl::Duration kCallTimeout = absl::Seconds(60);
constexpr absl::Duration kWatchPatience = absl::Seconds(30);
constexpr absl::Duration kRetryPause = absl::Milliseconds(200);

absl::Time TimeOf(bool present, const google::protobuf::Timestamp& stamp) {
  if (!present) return absl::InfinitePast();
  return absl::FromUnixSeconds(stamp.seconds()) + absl::Nanoseconds(stamp.nanos());
}

absl::StatusOr<JobState> StateOf(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_QUEUED: return JobState::kQueued;
    case v1::JOB_STATE_RUNNING: return JobState::kRunning;
    case v1::JOB_STATE_SUCCEEDED: return JobState::kSucceeded;
    case v1::JOB_STATE_FAILED: return JobState::kFailed;
    case v1::JOB_STATE_CANCELLED: return JobState::kCancelled;
    default: break;
  }
  return absl::UnimplementedError(
      absl::StrCat("the service answered with job state ", int(state),
                   ", which this client does not know; a newer client is needed"));
}

JobProgress ProgressOf(const v1::JobProgress& message) {
  JobProgress progress;
  progress.step = message.step();
  progress.step_number = message.step_number();
  progress.step_count = message.step_count();
  progress.done_bytes = uint64_t(std::max<int64_t>(message.done_bytes(), 0));
  progress.total_bytes = uint64_t(std::max<int64_t>(message.total_bytes(), 0));
  progress.bytes_per_second = message.bytes_per_second();
  if (message.has_eta()) {
    progress.eta =
        absl::Seconds(message.eta().seconds()) + absl::Nanoseconds(message.eta().nanos());
  }
  progress.item = message.item();
  return progress;
}

absl::StatusOr<Job> JobOf(const v1::Job& message) {
  Job job;
  job.id = message.job_id();
  job.spec = {message.spec().convert().source_path(), message.spec().convert().destination_path(),
              message.spec().convert().outtype()};
  ODMOE_ASSIGN_OR_RETURN(job.state, StateOf(message.state()));
  job.progress = ProgressOf(message.progress());
  job.error = message.error_message();
  job.error_code = absl::StatusCode(message.error_code());
  job.created = TimeOf(message.has_create_time(), message.create_time());
  job.started = TimeOf(message.has_start_time(), message.start_time());
  job.finished = TimeOf(message.has_finish_time(), message.finish_time());
  job.version = message.version();
  return job;
}

class RemoteJobQueue : public JobQueue {
 public:
  explicit RemoteJobQueue(std::shared_ptr<grpc::Channel> channel)
      : stub_(v1::ConversionService::NewStub(std::move(channel))) {}

  absl::StatusOr<Job> Submit(const ConvertSpec& spec, absl::string_view request_id) override {
    v1::SubmitJobRequest request;
    v1::ConvertSpec& convert = *request.mutable_spec()->mutable_convert();
    convert.set_source_path(spec.source);
    convert.set_destination_path(spec.destination);
    convert.set_outtype(spec.outtype);
    request.set_request_id(std::string(request_id));
    v1::SubmitJobResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ConversionService::Stub::SubmitJob, request, response));
    return JobOf(response.job());
  }

  absl::StatusOr<Job> Get(absl::string_view id) override {
    v1::GetJobRequest request;
    request.set_job_id(std::string(id));
    v1::GetJobResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ConversionService::Stub::GetJob, request, response));
    return JobOf(response.job());
  }

  absl::StatusOr<std::vector<Job>> List(int limit) override {
    if (limit < 1) return absl::InvalidArgumentError(absl::StrCat("limit ", limit, " is not positive"));
    v1::ListJobsRequest request;
    request.set_page_size(limit);
    v1::ListJobsResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ConversionService::Stub::ListJobs, request, response));
    std::vector<Job> jobs;
    for (const v1::Job& message : response.jobs()) {
      ODMOE_ASSIGN_OR_RETURN(Job job, JobOf(message));
      jobs.push_back(std::move(job));
    }
    return jobs;
  }

  absl::StatusOr<Job> Cancel(absl::string_view id) override {
    v1::CancelJobRequest request;
    request.set_job_id(std::string(id));
    v1::CancelJobResponse response;
    ODMOE_RETURN_IF_ERROR(Call(&v1::ConversionService::Stub::CancelJob, request, response));
    return JobOf(response.job());
  }

  absl::StatusOr<Job> Watch(absl::string_view id, int64_t after_version,
                            const Cancellation* cancellation,
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
    absl::StatusOr<Job> job = JobOf(response.job());
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

absl::StatusOr<Job> RemoteJobQueue::Watch(absl::string_view id, int64_t after_version,
                                          const Cancellation* cancellation,
                                          const std::function<bool(const Job&)>& on_change) {
  WatchState state{after_version};
  absl::Time give_up = absl::Now() + kWatchPatience;
  while (true) {
    const int64_t seen = state.version;
    const absl::Status status = WatchOnce(id, cancellation, on_change, state);
    if (cancellation != nullptr && cancellation->cancelled()) {
      return absl::CancelledError("the watch was given up");
    }
    if (status.ok()) {
      if (state.last) return *state.last;
      return Get(id);  // it had ended, and `after_version` was its end
    }
    if (state.version != seen) give_up = absl::Now() + kWatchPatience;
    if (!absl::IsUnavailable(status) || absl::Now() >= give_up) return status;
    absl::SleepFor(kRetryPause);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobQueue>> ConnectJobQueue(const std::string& endpoint) {
  ODMOE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, MakeChannel(endpoint));
  return std::make_unique<RemoteJobQueue>(std::move(channel));
}

}  // namespace odmoe
