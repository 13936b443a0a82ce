// The service and its client over a real connection.
#include "services/conversion/service/conversion_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/remote_job_queue.h"
#include "grpcpp/impl/service_type.h"
#include "odmoe/conversion/v1/conversion_service.grpc.pb.h"
#include "services/conversion/jobs/local_job_queue.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/server.h"
#include "tests/conversion/fake_conversion.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;
namespace v1 = ::odmoe::conversion::v1;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class ConversionServiceTest : public ::testing::Test {
 protected:
  ConversionServiceTest() : endpoint_("unix:" + folder_ / "service.sock") {
    WriteFileOrDie(folder_ / "a.model", "MODEL a");
    WriteFileOrDie(folder_ / "b.model", "MODEL b");
    StartService();
    client_ = *ConnectJobQueue(endpoint_);
  }
  ~ConversionServiceTest() override { StopService(); }

  void StartService() {
    LocalJobQueueOptions options;
    options.database_path = folder_ / "jobs.sqlite";
    options.roots = {folder_.path()};
    options.progress_interval = absl::ZeroDuration();
    queue_ = *OpenLocalJobQueue(options, conversion_.functions());
    SpoolOptions spool;
    spool.directory = folder_ / "spool";
    spool.quota_bytes = 1 << 20;
    spool.in_use = [this](const std::string& directory) { return queue_->UsesBelow(directory); };
    spool_ = *Spool::Open(std::move(spool));
    service_ = MakeConversionService(*queue_, {*PathRoots::Create(options.roots), spool_.get()});
    RpcServerOptions server;
    server.listen = endpoint_;
    server.services = {service_.get()};
    server.service_names = {ConversionServiceName()};
    server_ = *RpcServer::Start(server);
  }

  void StopService() {
    server_ = nullptr;
    service_ = nullptr;
    queue_ = nullptr;
  }

  std::unique_ptr<v1::ConversionService::Stub> Stub() {
    return v1::ConversionService::NewStub(*MakeChannel(endpoint_));
  }

  JobSpec Spec(absl::string_view source, absl::string_view destination) {
    return OneStep(folder_ / source, folder_ / destination);
  }

  TemporaryDirectory folder_;
  const std::string endpoint_;
  FakeConversion conversion_;
  std::unique_ptr<HostedJobQueue> queue_;
  std::unique_ptr<Spool> spool_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<JobQueue> client_;
};

TEST_F(ConversionServiceTest, AJobIsTheSameOnBothSides) {
  const absl::StatusOr<Job> job = client_->Submit(Spec("a.model", "a.gguf"), "r1");
  ASSERT_TRUE(job.ok()) << job.status();
  const absl::StatusOr<Job> ended =
      client_->Watch(job->id, {}, [](const Job&) { return true; });
  ASSERT_TRUE(ended.ok()) << ended.status();
  const Job local = *queue_->Get(job->id);
  for (const Job& remote : {*ended, *client_->Get(job->id), client_->List(5)->front()}) {
    EXPECT_EQ(remote.id, local.id);
    EXPECT_EQ(remote.spec, local.spec);
    EXPECT_EQ(remote.state, JobState::kSucceeded);
    ASSERT_THAT(remote.steps, SizeIs(1));
    EXPECT_EQ(remote.steps[0].state, StepState::kDone);
    EXPECT_EQ(remote.steps[0].progress.done_bytes, local.steps[0].progress.done_bytes);
    EXPECT_EQ(remote.steps[0].result.bytes, local.steps[0].result.bytes);
    EXPECT_EQ(remote.created, local.created);
    EXPECT_EQ(remote.started, local.started);
    EXPECT_EQ(remote.finished, local.finished);
    EXPECT_EQ(remote.version, local.version);
  }
  EXPECT_EQ(client_->Submit(Spec("a.model", "a.gguf"), "r1")->id, job->id);
}

TEST_F(ConversionServiceTest, ErrorsKeepTheirCodes) {
  EXPECT_EQ(client_->Submit(Spec("absent", "x"), "").status().code(), absl::StatusCode::kNotFound);
  const absl::Status denied =
      client_->Submit(OneStep("/etc/shadow", folder_ / "x"), "").status();
  EXPECT_EQ(denied.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(denied.message()), HasSubstr("/etc/shadow"));
  EXPECT_EQ(client_->Get("nobody").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->Cancel("nobody").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->Watch("nobody", {}, [](const Job&) { return true; }).status().code(),
            absl::StatusCode::kNotFound);
  conversion_.set_outcome(absl::DataLossError("corrupt"));
  const Job job = *client_->Submit(Spec("a.model", "a.gguf"), "");
  const auto ended = client_->Watch(job.id, {}, [](const Job&) { return true; });
  EXPECT_EQ(ended->state, JobState::kFailed);
  EXPECT_EQ(ended->error_code, absl::StatusCode::kDataLoss);
  EXPECT_EQ(ended->error, "corrupt");
}

// Every RPC, every field that can be wrong.
TEST_F(ConversionServiceTest, BadInputIsRefused) {
  const auto stub = Stub();
  const auto expect_invalid = [](const grpc::Status& status, const std::string& field) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(field));
    EXPECT_FALSE(status.error_details().empty());
  };
  const auto submit = [&](const std::function<void(v1::SubmitJobRequest&)>& spoil,
                          const std::string& field) {
    v1::SubmitJobRequest request;
    v1::ConvertSpec& convert = *request.mutable_spec()->add_steps()->mutable_convert();
    convert.set_source_path(folder_ / "a.model");
    convert.set_destination_path(folder_ / "a.gguf");
    spoil(request);
    v1::SubmitJobResponse response;
    grpc::ClientContext context;
    expect_invalid(stub->SubmitJob(&context, request, &response), field);
  };
  const auto convert = [&](const std::function<void(v1::ConvertSpec&)>& spoil,
                           const std::string& field) {
    submit([&](auto& r) { spoil(*r.mutable_spec()->mutable_steps(0)->mutable_convert()); }, field);
  };
  submit([](auto& r) { r.clear_spec(); }, "spec.steps");
  submit([](auto& r) { r.mutable_spec()->mutable_steps(0)->clear_work(); }, "spec.steps[0].work");
  submit([](auto& r) { r.mutable_spec()->set_priority(1001); }, "spec.priority");
  convert([](auto& c) { c.clear_source_path(); }, "source_path");
  convert([](auto& c) { c.clear_destination_path(); }, "destination_path");
  convert([](auto& c) { c.set_source_path(std::string(100'000, '/')); }, "source_path");
  convert([](auto& c) { c.set_outtype(std::string(99, 'f')); }, "outtype");
  convert([](auto& c) { c.set_pad_vocab(-1); }, "pad_vocab");
  submit([](auto& r) { r.set_request_id(std::string(129, 'r')); }, "request_id");

  using Stub = v1::ConversionService::Stub;
  const auto by_id = [&](auto method, auto request, auto response, const std::string& id) {
    request.set_job_id(id);
    grpc::ClientContext context;
    expect_invalid((*stub.*method)(&context, request, &response), "job_id");
  };
  for (const std::string& id : {std::string(), std::string(65, 'j')}) {
    by_id(&Stub::GetJob, v1::GetJobRequest(), v1::GetJobResponse(), id);
    by_id(&Stub::CancelJob, v1::CancelJobRequest(), v1::CancelJobResponse(), id);
    by_id(&Stub::PauseJob, v1::PauseJobRequest(), v1::PauseJobResponse(), id);
    by_id(&Stub::ResumeJob, v1::ResumeJobRequest(), v1::ResumeJobResponse(), id);
    by_id(&Stub::RetryJob, v1::RetryJobRequest(), v1::RetryJobResponse(), id);
    by_id(&Stub::DeleteJob, v1::DeleteJobRequest(), v1::DeleteJobResponse(), id);
    grpc::ClientContext watch_context;
    v1::WatchJobRequest watch;
    watch.set_job_id(id);
    v1::WatchJobResponse watch_response;
    const auto reader = stub->WatchJob(&watch_context, watch);
    EXPECT_FALSE(reader->Read(&watch_response));
    expect_invalid(reader->Finish(), "job_id");
  }
  for (const int page_size : {-1, 1001, std::numeric_limits<int>::max()}) {
    grpc::ClientContext context;
    v1::ListJobsRequest list;
    list.set_page_size(page_size);
    v1::ListJobsResponse response;
    expect_invalid(stub->ListJobs(&context, list, &response), "page_size");
  }
  grpc::ClientContext context;
  v1::WatchJobRequest watch;
  watch.set_job_id("a");
  watch.set_after_version(-5);
  v1::WatchJobResponse response;
  const auto reader = stub->WatchJob(&context, watch);
  EXPECT_FALSE(reader->Read(&response));
  expect_invalid(reader->Finish(), "after_version");
  EXPECT_THAT(*queue_->List(10), SizeIs(0));
}

TEST_F(ConversionServiceTest, CancelsOverTheWire) {
  conversion_.Hold();
  const Job job = *client_->Submit(Spec("a.model", "a.gguf"), "");
  ASSERT_TRUE(conversion_.WaitForRuns(1));
  EXPECT_EQ(client_->Cancel(job.id)->state, JobState::kCancelled);
  EXPECT_EQ(client_->Cancel(job.id).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ConversionServiceTest, AJobIsPausedResumedRetriedAndDeletedOverTheWire) {
  conversion_.Hold();
  const Job job = *client_->Submit(Spec("a.model", "a.gguf"), "");
  ASSERT_TRUE(conversion_.WaitForRuns(1));
  EXPECT_EQ(client_->Delete(job.id).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client_->Retry(job.id).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client_->Resume(job.id).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client_->Pause(job.id)->state, JobState::kPaused);
  EXPECT_EQ(client_->Pause(job.id)->state, JobState::kPaused);
  EXPECT_EQ(client_->Resume(job.id)->state, JobState::kQueued);
  ASSERT_TRUE(conversion_.WaitForRuns(2));
  EXPECT_EQ(client_->Cancel(job.id)->state, JobState::kCancelled);
  conversion_.Release();
  EXPECT_FALSE(client_->Retry(job.id)->ended());
  EXPECT_EQ(client_->Watch(job.id, {}, [](const Job&) { return true; })->state,
            JobState::kSucceeded);
  EXPECT_TRUE(client_->Delete(job.id).ok());
  EXPECT_EQ(client_->Get(job.id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->Delete(job.id).code(), absl::StatusCode::kNotFound);
}

TEST_F(ConversionServiceTest, AWatchEndsWhenItsCallerHasEnough) {
  conversion_.Hold();
  const Job job = *client_->Submit(Spec("a.model", "a.gguf"), "");
  EXPECT_FALSE(client_->Watch(job.id, {}, [](const Job&) { return false; })->ended());
  Cancellation cancellation;
  const auto given_up = client_->Watch(job.id, {.cancellation = &cancellation}, [&](const Job&) {
    cancellation.Cancel();
    return true;
  });
  EXPECT_EQ(given_up.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(ConversionServiceTest, AWatchGoesOnAfterARestart) {
  conversion_.Hold();
  const Job job = *client_->Submit(Spec("a.model", "a.gguf"), "");
  ASSERT_TRUE(conversion_.WaitForRuns(1));
  std::vector<int64_t> versions;
  std::thread restart;
  int interruptions = 0;
  WatchOptions options;
  options.on_interrupted = [&](const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    ++interruptions;
  };
  const auto ended = client_->Watch(job.id, options, [&](const Job& change) {
    versions.push_back(change.version);
    if (!restart.joinable()) {
      restart = std::thread([&] {
        StopService();
        conversion_.Release();
        StartService();
      });
    }
    return true;
  });
  restart.join();
  ASSERT_TRUE(ended.ok()) << ended.status();
  EXPECT_GE(interruptions, 1);
  EXPECT_EQ(ended->state, JobState::kSucceeded);
  for (size_t i = 1; i < versions.size(); ++i) EXPECT_GT(versions[i], versions[i - 1]);
}

TEST_F(ConversionServiceTest, CallsFailCleanlyWithoutAService) {
  StopService();
  EXPECT_EQ(client_->List(5).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(client_->Submit(Spec("a.model", "a.gguf"), "").status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(ConnectJobQueue("nonsense").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace odmoe
