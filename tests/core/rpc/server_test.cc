#include "services/core/rpc/server.h"

#include <unistd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "odmoe/conversion/v1/conversion_service.grpc.pb.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/serve_unary.h"
#include "services/core/rpc/server_stream.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = odmoe::conversion::v1;

// A service whose calls do what their job id says.
class ScriptedService final : public v1::ConversionService::CallbackService {
 public:
  explicit ScriptedService(ThreadPool& executor) : executor_(executor) {}

  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context,
                                   const v1::GetJobRequest* request,
                                   v1::GetJobResponse* response) override {
    return ServeUnary(context, executor_, [this, request, response](const ServerCall& call) {
      if (request->job_id() == "bad") return InvalidField("job_id", "is bad");
      if (request->job_id() == "hang") {
        began.Notify();
        while (!call.cancellation->cancelled()) sched_yield();
        cancelled.Notify();
        return absl::CancelledError("gave up");
      }
      if (request->job_id() == "late") {
        while (!call.cancellation->cancelled()) sched_yield();
        return absl::CancelledError("too late");
      }
      if (request->job_id() == "deadline") deadline = call.deadline;
      response->mutable_job()->set_job_id(request->job_id());
      return absl::OkStatus();
    });
  }

  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(
      grpc::CallbackServerContext* context, const v1::WatchJobRequest* request) override {
    return ServeStream<v1::WatchJobResponse>(
        context, executor_, [this, request](StreamWriter<v1::WatchJobResponse>& out) {
          v1::WatchJobResponse response;
          for (int64_t version = 1;
               request->after_version() == 0 || version <= request->after_version(); ++version) {
            response.mutable_job()->set_version(version);
            if (!out.Write(response)) {
              cancelled.Notify();
              return absl::CancelledError("client left");
            }
          }
          return absl::OutOfRangeError("no more");
        });
  }

  absl::Notification began;      // "hang" runs
  absl::Notification cancelled;  // a handler has learnt that its client is gone
  absl::Time deadline;           // as "deadline" saw it

 private:
  ThreadPool& executor_;
};

class RpcServerTest : public testing::Test {
 protected:
  void Start(const std::string& listen) {
    RpcServerOptions options;
    options.listen = listen;
    options.services = {&service_};
    options.service_names = {v1::ConversionService::service_full_name()};
    auto server = RpcServer::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto channel = MakeChannel(server_->address());
    ASSERT_TRUE(channel.ok());
    channel_ = *channel;
    stub_ = v1::ConversionService::NewStub(channel_);
  }

  absl::Status Get(const std::string& id, absl::Duration timeout = absl::Seconds(30)) {
    grpc::ClientContext context;
    return Get(context, id, timeout);
  }

  absl::Status Get(grpc::ClientContext& context, const std::string& id, absl::Duration timeout) {
    SetDeadline(context, absl::Now() + timeout);
    v1::GetJobRequest request;
    request.set_job_id(id);
    v1::GetJobResponse response;
    const absl::Status status = FromGrpcStatus(stub_->GetJob(&context, request, &response));
    EXPECT_EQ(response.job().job_id(), status.ok() ? id : "");
    return status;
  }

  ThreadPool executor_{8};
  ScriptedService service_{executor_};
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ConversionService::Stub> stub_;
};

TEST_F(RpcServerTest, ServesOverTcpAndUnixSockets) {
  Start("127.0.0.1:0");
  EXPECT_TRUE(Get("one").ok());
  Start(absl::StrCat("unix:", testing::TempDir(), "odmoe-rpc-", getpid(), ".sock"));
  EXPECT_TRUE(Get("two").ok());
}

TEST_F(RpcServerTest, ErrorsArriveWithTheirCodeAndField) {
  Start("127.0.0.1:0");
  const absl::Status status = Get("bad");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "job_id: is bad");
}

TEST_F(RpcServerTest, AHandlerLearnsThatItsClientGaveUp) {
  Start("127.0.0.1:0");
  grpc::ClientContext context;
  std::thread client([&] {
    EXPECT_EQ(Get(context, "hang", absl::Minutes(5)).code(), absl::StatusCode::kCancelled);
  });
  service_.began.WaitForNotification();
  context.TryCancel();
  service_.cancelled.WaitForNotification();
  client.join();
}

TEST_F(RpcServerTest, AHandlerKnowsItsClientsDeadline) {
  Start("127.0.0.1:0");
  const absl::Time before = absl::Now();
  EXPECT_TRUE(Get("deadline", absl::Hours(1)).ok());
  EXPECT_GT(service_.deadline, before);
  EXPECT_LT(service_.deadline, absl::Now() + absl::Hours(2));
}

// Whether the call reaches the handler in time or not.
TEST_F(RpcServerTest, ACallEndsAtItsDeadline) {
  Start("127.0.0.1:0");
  EXPECT_EQ(Get("late", absl::Milliseconds(50)).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(RpcServerTest, AStreamArrivesInOrderAndEndsWithItsStatus) {
  Start("127.0.0.1:0");
  grpc::ClientContext context;
  v1::WatchJobRequest request;
  request.set_after_version(1000);
  auto reader = stub_->WatchJob(&context, request);
  v1::WatchJobResponse response;
  int64_t expected = 1;
  while (reader->Read(&response)) ASSERT_EQ(response.job().version(), expected++);
  EXPECT_EQ(expected, 1001);
  EXPECT_EQ(FromGrpcStatus(reader->Finish()).code(), absl::StatusCode::kOutOfRange);
}

TEST_F(RpcServerTest, AProducerLearnsThatItsReaderLeft) {
  Start("127.0.0.1:0");
  grpc::ClientContext context;
  v1::WatchJobRequest request;  // endless
  auto reader = stub_->WatchJob(&context, request);
  v1::WatchJobResponse response;
  ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(service_.cancelled.WaitForNotificationWithTimeout(absl::Seconds(30)));
}

TEST_F(RpcServerTest, AfterShutdownCallsAreUnavailable) {
  Start("127.0.0.1:0");
  ASSERT_TRUE(Get("one").ok());
  server_->Shutdown(absl::Now() + absl::Seconds(5));
  EXPECT_EQ(Get("two").code(), absl::StatusCode::kUnavailable);
}

// Calls a method by its bytes, for services whose protos no package ships.
absl::StatusOr<std::string> CallByBytes(const std::shared_ptr<grpc::Channel>& channel,
                                        const std::string& method, const std::string& request) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  SetDeadline(context, absl::Now() + absl::Seconds(30));
  grpc::CompletionQueue queue;
  const grpc::Slice slice(request);
  auto call = stub.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&slice, 1), &queue);
  call->StartCall();
  grpc::ByteBuffer reply;
  grpc::Status status;
  call->Finish(&reply, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  if (!status.ok()) return FromGrpcStatus(status);
  std::vector<grpc::Slice> slices;
  reply.Dump(&slices);
  std::string bytes;
  for (const grpc::Slice& part : slices) {
    bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  return bytes;
}

TEST_F(RpcServerTest, HealthFollowsSetServing) {
  // grpc.health.v1.HealthCheckResponse{status: 1 SERVING, 2 NOT_SERVING}, field 1.
  Start("127.0.0.1:0");
  const std::string check = "/grpc.health.v1.Health/Check";
  const std::string service = "\x0a\x25odmoe.conversion.v1.ConversionService";
  EXPECT_EQ(CallByBytes(channel_, check, "").value_or("failed"), "\x08\x01");
  EXPECT_EQ(CallByBytes(channel_, check, service).value_or("failed"), "\x08\x01");
  EXPECT_EQ(CallByBytes(channel_, check, "\x0a\x01?").status().code(), absl::StatusCode::kNotFound);
  server_->SetServing(false);
  EXPECT_EQ(CallByBytes(channel_, check, "").value_or("failed"), "\x08\x02");
}

TEST(MakeChannelTest, RefusesWhatIsNoEndpoint) {
  for (const char* endpoint : {"", "localhost", "host:", ":1", "host:12a", "unix:"}) {
    EXPECT_EQ(MakeChannel(endpoint).status().code(), absl::StatusCode::kInvalidArgument)
        << endpoint;
  }
}

}  // namespace
}  // namespace odmoe
