// The Session stream as the service sees it, message by message.
#include <memory>
#include <thread>

#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/mapped_descriptor.h"
#include "clients/cpp/remote_expert_source.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/experts/memory_expert_source.h"
#include "services/core/experts/residency_table.h"
#include "services/core/experts/segment_message.h"
#include "services/core/rpc/channel.h"
#include "tests/support/expert_storage_server.h"
#include "tests/support/faulty_expert_source.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage::v1;

class SessionTest : public ::testing::Test {
 protected:
  SessionTest() {
    MemoryExpertSource::RandomOptions shape;
    shape.experts_per_layer = 8;
    auto source = std::make_unique<FaultyExpertSource>(MemoryExpertSource::Random(shape).value(),
                                                       faults_);
    CachingExpertStore::Options options;
    options.budget_bytes = 8 * SlotBytes(source->catalog().max_expert_bytes());
    options.shareable = true;
    EXPECT_TRUE(
        server_.models
            .Serve("model",
                   CachingExpertStore::Create(std::move(source), std::move(options)).value())
            .ok());
    stub_ = v1::ExpertStorageService::NewStub(MakeChannel(server_.endpoint).value());
    SetDeadline(context_, absl::Now() + absl::Minutes(1));
    stream_ = stub_->Session(&context_);
  }

  v1::AttachResponse Attach() {
    v1::SessionRequest request;
    request.mutable_attach()->set_model("model");
    EXPECT_TRUE(stream_->Write(request));
    v1::SessionResponse response;
    EXPECT_TRUE(stream_->Read(&response));
    return response.attached();
  }

  bool Acquire(int64_t request_id, int32_t layer, int32_t expert, int seconds = 30) {
    v1::SessionRequest request;
    request.mutable_acquire()->set_request_id(request_id);
    request.mutable_acquire()->mutable_timeout()->set_seconds(seconds);
    auto* id = request.mutable_acquire()->add_experts();
    id->set_layer(layer);
    id->set_expert(expert);
    return stream_->Write(request);
  }

  StoreStats Stats() { return (*server_.models.Find("model"))->store->Stats().value(); }

  // Ends the call by its status, reading what is left.
  grpc::Status Finish() {
    stream_->WritesDone();
    v1::SessionResponse response;
    while (stream_->Read(&response)) {
    }
    return stream_->Finish();
  }

  std::shared_ptr<ReadFaults> faults_ = std::make_shared<ReadFaults>();
  ExpertStorageTestServer server_;
  std::unique_ptr<v1::ExpertStorageService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionResponse>> stream_;
};

// As an inference service that is started again.
TEST_F(SessionTest, AClientThatComesAnewFindsWhatItLeft) {
  const std::vector<ExpertId> ids = {{0, 1}, {0, 2}, {1, 3}, {1, 4}};
  for (const size_t hits : {size_t{0}, ids.size()}) {
    const auto store = ConnectSharedMemoryStore(server_.endpoint, "model");
    ASSERT_TRUE(store.ok()) << store.status();
    const auto batch = (*store)->Acquire(ids, absl::Now() + absl::Minutes(1)).value();
    EXPECT_EQ(batch->hits(), hits);
    for (size_t i = 0; i < ids.size(); ++i) EXPECT_TRUE(batch->Wait(i).ok());
  }
  EXPECT_EQ(faults_->reads(), ids.size());
}

TEST_F(SessionTest, AReadThatHangsIsAnsweredAtItsTimeoutAndOthersAtOnce) {
  faults_->Hang({0, 1});
  EXPECT_EQ(Attach().max_batch(), 4);
  v1::SessionRequest request;
  request.mutable_acquire()->set_request_id(1);
  request.mutable_acquire()->mutable_timeout()->set_nanos(100'000'000);
  request.mutable_acquire()->add_experts()->set_expert(1);
  ASSERT_TRUE(stream_->Write(request));
  ASSERT_TRUE(Acquire(2, 0, 2));
  v1::SessionResponse response;
  ASSERT_TRUE(stream_->Read(&response));
  EXPECT_EQ(response.outcome().request_id(), 2);
  EXPECT_EQ(response.outcome().code(), 0);
  ASSERT_TRUE(stream_->Read(&response));
  EXPECT_EQ(response.outcome().request_id(), 1);
  EXPECT_EQ(response.outcome().code(), static_cast<int>(absl::StatusCode::kDeadlineExceeded));
  faults_->Release();
}

TEST_F(SessionTest, AttachSaysWhatToMapAndAcquirePinsIt) {
  const v1::AttachResponse attached = Attach();
  const auto fetched = FetchDescriptors(attached.socket_path(), attached.token(), 2);
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  const auto table = MappedDescriptor::Map(fetched->fds[0], attached.table_bytes(), false);
  const auto pins = MappedDescriptor::Map(fetched->fds[1], attached.pin_page_bytes(), true);
  ASSERT_TRUE(table.ok() && pins.ok());
  ASSERT_TRUE(Acquire(5, 1, 3));
  v1::SessionResponse response;
  ASSERT_TRUE(stream_->Read(&response));
  const v1::ExpertOutcome& outcome = response.outcome();
  EXPECT_EQ(outcome.request_id(), 5);
  EXPECT_EQ(outcome.expert().layer(), 1);
  EXPECT_EQ(outcome.expert().expert(), 3);
  EXPECT_EQ(outcome.code(), 0);
  const ResidencyShape shape = ResidencyTable::Attach((*table)->bytes())->shape();
  const auto page = PinPage::Attach((*pins)->bytes(), attached.epoch(), shape.slot_count);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_TRUE(page->Pinned(static_cast<uint32_t>(outcome.slot())));
  EXPECT_EQ(Stats().pinned_experts, 1u);
  EXPECT_EQ(Stats().clients, 1u);
}

TEST_F(SessionTest, TheArenaCannotBeMappedWritable) {
  const v1::AttachResponse attached = Attach();
  const auto fetched = FetchDescriptors(attached.socket_path(), attached.token(), 2);
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_FALSE(MappedDescriptor::Map(fetched->fds[0], attached.table_bytes(), true).ok());
  EXPECT_TRUE(MappedDescriptor::Map(fetched->fds[1], attached.pin_page_bytes(), true).ok());
  const auto packet = ReceivePacket(fetched->socket);
  ASSERT_TRUE(packet.ok()) << packet.status();
  const auto message = DecodeSegmentMessage(packet->bytes);
  ASSERT_TRUE(message.ok() && message->kind == SegmentMessage::Kind::kMap);
  ASSERT_EQ(packet->fds.size(), message->segments.size());
  const uint64_t bytes = static_cast<uint64_t>(attached.arena_bytes());
  ASSERT_EQ(packet->fds.size(), 1u);
  EXPECT_FALSE(MappedDescriptor::Map(packet->fds[0], bytes, true).ok());
  EXPECT_TRUE(MappedDescriptor::Map(packet->fds[0], bytes, false).ok());
}

TEST_F(SessionTest, ItsEndRevokesTheToken) {
  const v1::AttachResponse attached = Attach();
  EXPECT_TRUE(Finish().ok());
  EXPECT_TRUE(absl::IsPermissionDenied(
      FetchDescriptors(attached.socket_path(), attached.token(), 2).status()));
  EXPECT_EQ(Stats().clients, 0u);
}

TEST_F(SessionTest, AFailedExpertSaysItsCode) {
  Attach();
  faults_->Corrupt({0, 1});
  ASSERT_TRUE(Acquire(1, 0, 1));
  v1::SessionResponse response;
  ASSERT_TRUE(stream_->Read(&response));
  EXPECT_EQ(response.outcome().code(), static_cast<int>(absl::StatusCode::kDataLoss));
  EXPECT_THAT(response.outcome().message(), ::testing::HasSubstr("layer_00_expert_001"));
}

struct BadMessage {
  const char* name;
  bool attach_first;
  v1::SessionRequest request;
  grpc::StatusCode code;
};

std::vector<BadMessage> BadMessages() {
  std::vector<BadMessage> bad;
  v1::SessionRequest acquire;
  acquire.mutable_acquire()->set_request_id(1);
  acquire.mutable_acquire()->mutable_timeout()->set_seconds(1);
  acquire.mutable_acquire()->add_experts();
  v1::SessionRequest attach;
  attach.mutable_attach()->set_model("model");
  v1::SessionRequest prefetch;
  prefetch.mutable_prefetch()->add_experts();
  const auto with = [](v1::SessionRequest request, auto change) {
    change(request);
    return request;
  };
  bad.push_back({"Nothing", false, {}, grpc::StatusCode::INVALID_ARGUMENT});
  bad.push_back({"NothingLater", true, {}, grpc::StatusCode::INVALID_ARGUMENT});
  bad.push_back({"AcquireFirst", false, acquire, grpc::StatusCode::FAILED_PRECONDITION});
  bad.push_back({"PrefetchFirst", false, prefetch, grpc::StatusCode::FAILED_PRECONDITION});
  bad.push_back({"AttachTwice", true, attach, grpc::StatusCode::INVALID_ARGUMENT});
  bad.push_back({"NoSuchModel", false,
                 with(attach, [](auto& r) { r.mutable_attach()->set_model("other"); }),
                 grpc::StatusCode::NOT_FOUND});
  bad.push_back(
      {"LongModelName", false,
       with(attach, [](auto& r) { r.mutable_attach()->set_model(std::string(200, 'x')); }),
       grpc::StatusCode::INVALID_ARGUMENT});
  bad.push_back(
      {"LongTenant", false,
       with(attach, [](auto& r) { r.mutable_attach()->set_tenant(std::string(200, 'x')); }),
       grpc::StatusCode::INVALID_ARGUMENT});
  bad.push_back({"LongClientName", false, with(attach, [](auto& r) {
                   r.mutable_attach()->set_client_name(std::string(200, 'x'));
                 }),
                 grpc::StatusCode::INVALID_ARGUMENT});
  bad.push_back({"RequestIdZero", true,
                 with(acquire, [](auto& r) { r.mutable_acquire()->set_request_id(0); }),
                 grpc::StatusCode::INVALID_ARGUMENT});
  bad.push_back({"NoTimeout", true,
                 with(acquire, [](auto& r) { r.mutable_acquire()->clear_timeout(); }),
                 grpc::StatusCode::INVALID_ARGUMENT});
  bad.push_back({"NegativeTimeout", true, with(acquire, [](auto& r) {
                   r.mutable_acquire()->mutable_timeout()->set_seconds(-1);
                 }),
                 grpc::StatusCode::INVALID_ARGUMENT});
  bad.push_back({"NoExperts", true,
                 with(acquire, [](auto& r) { r.mutable_acquire()->clear_experts(); }),
                 grpc::StatusCode::INVALID_ARGUMENT});
  bad.push_back({"UnknownExpert", true, with(acquire, [](auto& r) {
                   r.mutable_acquire()->mutable_experts(0)->set_expert(-7);
                 }),
                 grpc::StatusCode::NOT_FOUND});
  bad.push_back({"UnknownPrefetch", true, with(prefetch, [](auto& r) {
                   r.mutable_prefetch()->mutable_experts(0)->set_layer(1 << 30);
                 }),
                 grpc::StatusCode::NOT_FOUND});
  return bad;
}

TEST_F(SessionTest, ABadMessageEndsTheSessionWithItsReason) {
  for (const BadMessage& bad : BadMessages()) {
    grpc::ClientContext context;
    SetDeadline(context, absl::Now() + absl::Minutes(1));
    stream_ = stub_->Session(&context);
    if (bad.attach_first) Attach();
    stream_->Write(bad.request);
    v1::SessionResponse response;
    while (stream_->Read(&response)) {
    }
    const grpc::Status status = stream_->Finish();
    EXPECT_EQ(status.error_code(), bad.code) << bad.name << ": " << status.error_message();
    EXPECT_FALSE(status.error_message().empty()) << bad.name;
    EXPECT_EQ(Stats().clients, 0u) << bad.name;
    EXPECT_EQ(Stats().pinned_experts, 0u) << bad.name;
  }
}

TEST_F(SessionTest, AClientThatReadsNothingIsHeldUpNotTheStore) {
  Attach();
  // Far more outcomes than the transport buffers; the writes stop when the store owes too many.
  std::thread writer([this] {
    for (int64_t i = 1; i <= 200'000; ++i) {
      if (!Acquire(i, 0, static_cast<int32_t>(i % 8))) return;
    }
  });
  // The store goes on serving others meanwhile.
  for (int round = 0; round < 50; ++round) {
    const auto store = ConnectSharedMemoryStore(server_.endpoint, "model");
    EXPECT_TRUE(store.ok()) << store.status();
    if (store.ok()) {
      EXPECT_TRUE((*store)->Stats().ok());
    }
  }
  context_.TryCancel();
  writer.join();
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

}  // namespace
}  // namespace odmoe
