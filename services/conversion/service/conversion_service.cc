#include "services/conversion/service/conversion_service.h"

#include <atomic>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "odmoe/conversion/v1/conversion_service.grpc.pb.h"
#include "services/conversion/service/request_checks.h"
#include "services/conversion/service/transfer_handlers.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/thread_pool.h"
#include "services/core/codec/job_codec.h"
#include "services/core/rpc/client_stream.h"
#include "services/core/rpc/serve_unary.h"
#include "services/core/rpc/server_stream.h"

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;

// Planning reads headers from disk and cancelling waits for a conversion to notice.
constexpr size_t kUnaryThreads = 16;
// A watch holds a thread for as long as it lasts.
constexpr int kMaxWatches = 128;
// So does a transfer.
constexpr int kMaxTransfers = 32;

class ConversionService : public v1::ConversionService::CallbackService {
 public:
  ConversionService(JobQueue& queue, ConversionServiceOptions options)
      : queue_(queue),
        roots_(std::move(options.roots)),
        transfers_(roots_, options.spool),
        unary_threads_(kUnaryThreads),
        watch_threads_(kMaxWatches),
        transfer_threads_(kMaxTransfers) {}

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
    return ChangeJob(context, *request, *response, &JobQueue::Cancel);
  }

  grpc::ServerUnaryReactor* PauseJob(grpc::CallbackServerContext* context,
                                      const v1::PauseJobRequest* request,
                                      v1::PauseJobResponse* response) override {
    return ChangeJob(context, *request, *response, &JobQueue::Pause);
  }

  grpc::ServerUnaryReactor* ResumeJob(grpc::CallbackServerContext* context,
                                      const v1::ResumeJobRequest* request,
                                      v1::ResumeJobResponse* response) override {
    return ChangeJob(context, *request, *response, &JobQueue::Resume);
  }

  grpc::ServerUnaryReactor* RetryJob(grpc::CallbackServerContext* context,
                                      const v1::RetryJobRequest* request,
                                      v1::RetryJobResponse* response) override {
    return ChangeJob(context, *request, *response, &JobQueue::Retry);
  }

  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* context,
                                      const v1::DeleteJobRequest* request,
                                      v1::DeleteJobResponse*) override {
    return ServeUnary(context, unary_threads_, [=, this](const ServerCall&) -> absl::Status {
      ODMOE_ASSIGN_OR_RETURN(const std::string id, CheckJobId(request->job_id()));
      return queue_.Delete(id);
    });
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

  grpc::ServerReadReactor<v1::UploadFileRequest>* UploadFile(
      grpc::CallbackServerContext* context, v1::UploadFileResponse* response) override {
    const bool admitted = ++running_transfers_ <= kMaxTransfers;
    return ServeClientStream<v1::UploadFileRequest>(
        context, admitted ? transfer_threads_ : unary_threads_, response,
        [=, this](StreamReader<v1::UploadFileRequest>& in,
                  v1::UploadFileResponse& out) -> absl::Status {
          const absl::Cleanup leave = [this] { --running_transfers_; };
          return admitted ? transfers_.UploadFile(in, out) : TooManyTransfers();
        });
  }

  grpc::ServerWriteReactor<v1::DownloadFileResponse>* DownloadFile(
      grpc::CallbackServerContext* context, const v1::DownloadFileRequest* request) override {
    const bool admitted = ++running_transfers_ <= kMaxTransfers;
    return ServeStream<v1::DownloadFileResponse>(
        context, admitted ? transfer_threads_ : unary_threads_,
        [=, this](StreamWriter<v1::DownloadFileResponse>& out) -> absl::Status {
          const absl::Cleanup leave = [this] { --running_transfers_; };
          return admitted ? transfers_.DownloadFile(*request, out) : TooManyTransfers();
        });
  }

  grpc::ServerUnaryReactor* GetUpload(grpc::CallbackServerContext* context,
                                      const v1::GetUploadRequest* request,
                                      v1::GetUploadResponse* response) override {
    return ServeUnary(context, unary_threads_, [=, this](const ServerCall&) {
      return transfers_.GetUpload(*request, *response);
    });
  }

  grpc::ServerUnaryReactor* DeleteUpload(grpc::CallbackServerContext* context,
                                         const v1::DeleteUploadRequest* request,
                                         v1::DeleteUploadResponse*) override {
    return ServeUnary(context, unary_threads_,
                      [=, this](const ServerCall&) { return transfers_.DeleteUpload(*request); });
  }

  grpc::ServerUnaryReactor* ListFiles(grpc::CallbackServerContext* context,
                                      const v1::ListFilesRequest* request,
                                      v1::ListFilesResponse* response) override {
    return ServeUnary(context, unary_threads_, [=, this](const ServerCall&) {
      return transfers_.ListFiles(*request, *response);
    });
  }

 private:
  // Those that change a job by its id and answer with it.
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* ChangeJob(grpc::CallbackServerContext* context, const Request& request,
                                      Response& response,
                                      absl::StatusOr<Job> (JobQueue::*change)(absl::string_view)) {
    return ServeUnary(context, unary_threads_,
                      [this, &request, &response, change](const ServerCall&) -> absl::Status {
                        ODMOE_ASSIGN_OR_RETURN(const std::string id, CheckJobId(request.job_id()));
                        ODMOE_ASSIGN_OR_RETURN(const Job job, (queue_.*change)(id));
                        *response.mutable_job() = ToProto(job);
                        return absl::OkStatus();
                      });
  }

  absl::Status Submit(const v1::SubmitJobRequest& request, v1::SubmitJobResponse& response) {
    ODMOE_ASSIGN_OR_RETURN(const JobSpec spec, FromProto(request.spec()));
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

  absl::Status Watch(const v1::WatchJobRequest& request, StreamWriter<v1::WatchJobResponse>& out) {
    ODMOE_ASSIGN_OR_RETURN(const std::string id, CheckJobId(request.job_id()));
    ODMOE_ASSIGN_OR_RETURN(const int64_t after_version, CheckAfterVersion(request));
    return queue_
        .Watch(id, {.after_version = after_version, .cancellation = out.call().cancellation},
               [&](const Job& job) {
                 v1::WatchJobResponse response;
                 *response.mutable_job() = ToProto(job);
                 return out.Write(response);
               })
        .status();
  }

  static absl::Status TooManyTransfers() {
    return absl::UnavailableError(absl::StrCat(kMaxTransfers, " transfers run already"));
  }

  JobQueue& queue_;
  const PathRoots roots_;
  TransferHandlers transfers_;
  std::atomic<int> watches_ = 0;
  std::atomic<int> running_transfers_ = 0;
  // Last, so that their threads are gone before the rest.
  ThreadPool unary_threads_;
  ThreadPool watch_threads_;
  ThreadPool transfer_threads_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeConversionService(JobQueue& queue,
                                                     ConversionServiceOptions options) {
  return std::make_unique<ConversionService>(queue, std::move(options));
}

const char* ConversionServiceName() { return v1::ConversionService::service_full_name(); }

}  // namespace odmoe
