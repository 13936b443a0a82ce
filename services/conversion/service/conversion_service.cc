#include "services/conversion/service/conversion_service.h"

#include <atomic>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "odmoe/conversion/v1/conversion_service.grpc.pb.h"
#include "services/conversion/service/proto_convert.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/thread_pool.h"
#include "services/core/rpc/serve_unary.h"
#include "services/core/rpc/server_stream.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;

// Planning reads headers from disk and cancelling waits for a conversion to notice.
constexpr size_t kUnaryThreads = 16;
// A watch holds a thread for as long as it lasts.
constexpr int kMaxWatches = 128;

class ConversionService : public v1::ConversionService::CallbackService {
 public:
  explicit ConversionService(JobQueue& queue)
      : queue_(queue), unary_threads_(kUnaryThreads), watch_threads_(kMaxWatches) {}

  grpc::ServerUnaryReactor* SubmitJob(grpc::CallbackServerContext* context,
                                      const v1::SubmitJobRequest* request,
                                      v1::SubmitJobResponse* response) override {
    return ServeUnary(context, unary_threads_,
                      [=, this](const ServerCall&) { return Submit(*request, *response); });
  }

  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context,
                                   const v1::GetJobRequest* request,
                                   v1::GetJobResponse* response) override {
    return ServeUnary(context, unary_threads_,
                      [=, this](const ServerCall&) { return Get(*request, *response); });
  }

  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override {
    return ServeUnary(context, unary_threads_,
                      [=, this](const ServerCall&) { return List(*request, *response); });
  }

  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context,
                                      const v1::CancelJobRequest* request,
                                      v1::CancelJobResponse* response) override {
    return ServeUnary(context, unary_threads_,
                      [=, this](const ServerCall&) { return Cancel(*request, *response); });
  }

  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(
      grpc::CallbackServerContext* context, const v1::WatchJobRequest* request) override {
    // One too many is refused at once, on a thread that no watch holds.
    const bool admitted = ++watches_ <= kMaxWatches;
    return ServeStream<v1::WatchJobResponse>(
        context, admitted ? watch_threads_ : unary_threads_,
        [=, this](StreamWriter<v1::WatchJobResponse>& out) -> absl::Status {
          const absl::Cleanup leave = [this] { --watches_; };
          if (admitted) return Watch(*request, out);
          return absl::ResourceExhaustedError(
              absl::StrCat(kMaxWatches, " watches are open already"));
        });
  }

 private:
  absl::Status Submit(const v1::SubmitJobRequest& request, v1::SubmitJobResponse& response) {
    ODMOE_ASSIGN_OR_RETURN(const ConvertSpec spec, FromProto(request.spec()));
    ODMOE_ASSIGN_OR_RETURN(const std::string request_id, CheckRequestId(request.request_id()));
    ODMOE_ASSIGN_OR_RETURN(const Job job, queue_.Submit(spec, request_id));
    *response.mutable_job() = ToProto(job);
    return absl::OkStatus();
  }

  absl::Status Get(const v1::GetJobRequest& request, v1::GetJobResponse& response) {
    ODMOE_ASSIGN_OR_RETURN(const std::string id, CheckJobId(request.job_id()));
    ODMOE_ASSIGN_OR_RETURN(const Job job, queue_.Get(id));
    *response.mutable_job() = ToProto(job);
    return absl::OkStatus();
  }

  absl::Status List(const v1::ListJobsRequest& request, v1::ListJobsResponse& response) {
    ODMOE_ASSIGN_OR_RETURN(const int limit, CheckPageSize(request.page_size()));
    ODMOE_ASSIGN_OR_RETURN(const std::vector<Job> jobs, queue_.List(limit));
    for (const Job& job : jobs) *response.add_jobs() = ToProto(job);
    return absl::OkStatus();
  }

  absl::Status Cancel(const v1::CancelJobRequest& request, v1::CancelJobResponse& response) {
    ODMOE_ASSIGN_OR_RETURN(const std::string id, CheckJobId(request.job_id()));
    ODMOE_ASSIGN_OR_RETURN(const Job job, queue_.Cancel(id));
    *response.mutable_job() = ToProto(job);
    return absl::OkStatus();
  }

  absl::Status Watch(const v1::WatchJobRequest& request, StreamWriter<v1::WatchJobResponse>& out) {
    ODMOE_ASSIGN_OR_RETURN(const std::string id, CheckJobId(request.job_id()));
    ODMOE_ASSIGN_OR_RETURN(const int64_t after_version, CheckAfterVersion(request));
    return queue_
        .Watch(id, after_version, out.call().cancellation,
               [&](const Job& job) {
                 v1::WatchJobResponse response;
                 *response.mutable_job() = ToProto(job);
                 return out.Write(response);
               })
        .status();
  }

  JobQueue& queue_;
  std::atomic<int> watches_ = 0;
  // Last, so that their threads are gone before the rest.
  ThreadPool unary_threads_;
  ThreadPool watch_threads_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeConversionService(JobQueue& queue) {
  return std::make_unique<ConversionService>(queue);
}

const char* ConversionServiceName() { return v1::ConversionService::service_full_name(); }

}  // namespace odmoe
