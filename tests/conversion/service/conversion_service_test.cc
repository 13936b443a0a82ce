// The service and its client over a real connection.
#include "services/conversion/service/conversion_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
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
    service_ = MakeConversionService(*queue_);
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

  ConvertSpec Spec(absl::string_view source, absl::string_view destination) {
    return {folder_ / source, folder_ / destination, "auto"};
  }

  TemporaryDirectory folder_;
  const std::string endpoint_;
  FakeConversion conversion_;
  std::unique_ptr<JobQueue> queue_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<JobQueue> client_;
};

TEST_F(ConversionServiceTest, AJobIsTheSameOnBothSides) {
  const absl::StatusOr<Job> job = client_->Submit(Spec("a.model", "a.gguf"), "r1");
  ASSERT_TRUE(job.ok()) << job.status();
  const absl::StatusOr<Job> ended =
      client_->Watch(job->id, -1, nullptr, [](const Job&) { return true; });
  ASSERT_TRUE(ended.ok()) << ended.status();
  const Job local = *queue_->Get(job->id);
  for (const Job& remote : {*ended, *client_->Get(job->id), client_->List(5)->front()}) {
    EXPECT_EQ(remote.id, local.id);
    EXPECT_EQ(remote.spec.source, local.spec.source);
    EXPECT_EQ(remote.spec.destination, local.spec.destination);
    EXPECT_EQ(remote.state, JobState::kSucceeded);
    EXPECT_EQ(remote.progress.step, local.progress.step);
    EXPECT_EQ(remote.progress.done_bytes, local.progress.done_bytes);
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
      client_->Submit({"/etc/shadow", folder_ / "x", "auto"}, "").status();
  EXPECT_EQ(denied.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(denied.message()), HasSubstr("/etc/shadow"));
  EXPECT_EQ(client_->Get("nobody").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->Cancel("nobody").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->Watch("nobody", -1, nullptr, [](const Job&) { return true; }).status().code(),
            absl::StatusCode::kNotFound);
  conversion_.set_outcome(absl::DataLossError("corrupt"));
  const Job job = *client_->Submit(Spec("a.model", "a.gguf"), "");
  const auto ended = client_->Watch(job.id, -1, nullptr, [](const Job&) { return true; });
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
    request.mutable_spec()->mutable_convert()->set_source_path(folder_ / "a.model");
    request.mutable_spec()->mutable_convert()->set_destination_path(folder_ / "a.gguf");
    spoil(request);
    v1::SubmitJobResponse response;
    grpc::ClientContext context;
    expect_invalid(stub->SubmitJob(&context, request, &response), field);
  };
  submit([](auto& r) { r.clear_spec(); }, "spec.work");
  submit([](auto& r) { r.mutable_spec()->clear_work(); }, "spec.work");
  submit([](auto& r) { r.mutable_spec()->mutable_convert()->clear_source_path(); }, "source_path");
  submit([](auto& r) { r.mutable_spec()->mutable_convert()->clear_destination_path(); },
         "destination_path");
  submit([](auto& r) { r.mutable_spec()->mutable_convert()->set_source_path("a/b"); },
         "source_path");
  submit(
      [](auto& r) { r.mutable_spec()->mutable_convert()->set_source_path(std::string(1, '\0')); },
      "source_path");
  submit([](auto& r) {
    r.mutable_spec()->mutable_convert()->set_source_path(std::string(100'000, '/'));
  }, "source_path");
  submit([](auto& r) { r.mutable_spec()->mutable_convert()->set_outtype(std::string(99, 'f')); },
         "outtype");
  submit([](auto& r) { r.set_request_id(std::string(129, 'r')); }, "request_id");

  for (const std::string& id : {std::string(), std::string(65, 'j')}) {
    grpc::ClientContext get_context, cancel_context, watch_context;
    v1::GetJobRequest get;
    get.set_job_id(id);
    v1::GetJobResponse get_response;
    expect_invalid(stub->GetJob(&get_context, get, &get_response), "job_id");
    v1::CancelJobRequest cancel;
    cancel.set_job_id(id);
    v1::CancelJobResponse cancel_response;
    expect_invalid(stub->CancelJob(&cancel_context, cancel, &cancel_response), "job_id");
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

TEST_F(ConversionServiceTest, AWatchEndsWhenItsCallerHasEnough) {
  conversion_.Hold();
  const Job job = *client_->Submit(Spec("a.model", "a.gguf"), "");
  EXPECT_FALSE(client_->Watch(job.id, -1, nullptr, [](const Job&) { return false; })->ended());
  Cancellation cancellation;
  const auto given_up = client_->Watch(job.id, -1, &cancellation, [&](const Job&) {
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
  const auto ended = client_->Watch(job.id, -1, nullptr, [&](const Job& change) {
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
