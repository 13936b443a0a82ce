// Another budget while clients of other processes, as the service sees them, have the store's
// memory mapped.
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/mapped_descriptor.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/experts/memory_expert_source.h"
#include "services/core/rpc/channel.h"
#include "tests/support/expert_storage_server.h"
#include "xxhash.h"

namespace odmoe {
namespace {

class ResizeServiceTest : public ::testing::Test {
 protected:
  ResizeServiceTest() {
    MemoryExpertSource::RandomOptions shape;
    shape.layers = 4;
    shape.experts_per_layer = 16;
    auto source = MemoryExpertSource::Random(shape).value();
    slot_bytes_ = SlotBytes(source->catalog().max_expert_bytes());
    CachingExpertStore::Options options;
    options.budget_bytes = 32 * slot_bytes_;
    options.shareable = true;
    options.segment_slots = 4;
    options.client_patience = absl::Seconds(1);
    auto store = CachingExpertStore::Create(std::move(source), std::move(options)).value();
    EXPECT_TRUE(server_.models.Serve("model", std::move(store)).ok());
    admin_ = ExpertStorageAdmin::Connect(server_.endpoint).value();
  }

  absl::Status ResizeTo(uint64_t slots) {
    const Budget budget = {Budget::Kind::kBytes, slots * slot_bytes_, 0.0};
    const auto models = admin_->ResizeBudget("model", budget, absl::Seconds(30));
    if (models.ok()) {
      EXPECT_EQ((*models)[0].slot_count, slots);
    }
    return models.status();
  }

  // One random expert, its bytes as the catalog says.
  static void CheckOne(ExpertStore& store, std::mt19937& random) {
    const ExpertId id = {static_cast<int32_t>(random() % 4), static_cast<int32_t>(random() % 16)};
    const auto batch = store.Acquire({id}, absl::Now() + absl::Minutes(1));
    ASSERT_TRUE(batch.ok()) << batch.status();
    const auto view = (*batch)->Wait(0);
    ASSERT_TRUE(view.ok()) << view.status();
    const LayerExperts& layer = *store.catalog().FindLayer(id.layer);
    ASSERT_EQ(XXH3_64bits(view->data, layer.layout.bytes), layer.xxh3[id.expert]);
  }

  uint64_t slot_bytes_ = 0;
  ExpertStorageTestServer server_;
  std::unique_ptr<ExpertStorageAdmin> admin_;
};

TEST_F(ResizeServiceTest, EightClientsSeeNoWrongByteWhileTheBudgetGoesUpAndDown) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> checked{0};
  std::vector<std::thread> clients;
  for (int client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      const auto store = ConnectSharedMemoryStore(server_.endpoint, "model");
      ASSERT_TRUE(store.ok()) << store.status();
      std::mt19937 random(client);
      while (!stop.load() && !HasFatalFailure()) {
        CheckOne(**store, random);
        checked.fetch_add(1);
      }
    });
  }
  std::mt19937 random(3);
  for (int round = 0; round < 12; ++round) {
    const uint64_t before = checked.load();
    // Eight clients hold one expert each, and wait for no second one.
    const absl::Status status = ResizeTo(1 + random() % 64);
    ASSERT_TRUE(status.ok()) << status;
    while (checked.load() < before + 50 && !HasFatalFailure()) std::this_thread::yield();
  }
  stop = true;
  for (std::thread& client : clients) client.join();
  EXPECT_GT(admin_->Stats("model")->store.evictions, 50u);
}

TEST_F(ResizeServiceTest, WhoDoesNotAnswerLosesItsSessionAndTheBudgetStaysUntilItEnds) {
  namespace v1 = expert_storage::v1;
  const auto stub = v1::ExpertStorageService::NewStub(MakeChannel(server_.endpoint).value());
  grpc::ClientContext context;
  SetDeadline(context, absl::Now() + absl::Minutes(1));
  const auto stream = stub->Session(&context);
  v1::SessionRequest request;
  request.mutable_attach()->set_model("model");
  request.mutable_attach()->set_client_name("sleeper");
  ASSERT_TRUE(stream->Write(request));
  v1::SessionResponse response;
  ASSERT_TRUE(stream->Read(&response));
  auto fetched =
      FetchDescriptors(response.attached().socket_path(), response.attached().token(), 2).value();
  const auto awake = ConnectSharedMemoryStore(server_.endpoint, "model").value();
  std::mt19937 random(5);
  CheckOne(*awake, random);

  const absl::Status status = ResizeTo(8);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("'sleeper'"));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(admin_->Stats("model")->store.slot_count, 32u);
  for (int i = 0; i < 100; ++i) CheckOne(*awake, random);

  // Its process ends.
  fetched.socket = OwnedFd();
  for (const absl::Time end = absl::Now() + absl::Minutes(1); absl::Now() < end;) {
    if (ResizeTo(8).ok()) break;
  }
  EXPECT_EQ(admin_->Stats("model")->store.slot_count, 8u);
  for (int i = 0; i < 100; ++i) CheckOne(*awake, random);
}

// More changes than the service has threads, the first of which waits for a pin.
TEST_F(ResizeServiceTest, ChangesThatWaitHoldUpNobodyElse) {
  namespace v1 = expert_storage::v1;
  constexpr int kChanges = 24;
  auto model = server_.models.Find("model").value();
  auto pin = model->store->Acquire({{0, 0}}, absl::Now() + absl::Minutes(1)).value();
  ASSERT_TRUE(pin->Wait(0).ok());
  const auto stub = v1::ExpertStorageService::NewStub(MakeChannel(server_.endpoint).value());
  struct Change {
    grpc::ClientContext context;
    v1::ResizeBudgetRequest request;
    v1::ResizeBudgetResponse response;
    absl::Notification over;
    grpc::Status status;
  };
  std::vector<Change> changes(kChanges);
  for (Change& change : changes) {
    SetDeadline(change.context, absl::Now() + absl::Minutes(2));
    change.request.set_model("model");
    change.request.mutable_budget()->set_bytes(static_cast<int64_t>(slot_bytes_));
    change.request.mutable_timeout()->set_seconds(100);
    stub->async()->ResizeBudget(&change.context, &change.request, &change.response,
                                [&change](grpc::Status status) {
                                  change.status = std::move(status);
                                  change.over.Notify();
                                });
  }
  // On the same connection, so the changes have come when it is answered.
  grpc::ClientContext context;
  SetDeadline(context, absl::Now() + absl::Seconds(30));
  v1::ListModelsResponse listed;
  EXPECT_TRUE(stub->ListModels(&context, {}, &listed).ok());
  // Nor sessions.
  const auto client = ConnectSharedMemoryStore(server_.endpoint, "model");
  EXPECT_TRUE(client.ok()) << client.status();
  // Who gives up while it waits is not served after all.
  Change& last = changes.back();
  last.context.TryCancel();
  last.over.WaitForNotification();
  EXPECT_EQ(last.status.error_code(), grpc::StatusCode::CANCELLED);
  pin.reset();
  for (Change& change : changes) change.over.WaitForNotification();
  for (int i = 0; i + 1 < kChanges; ++i) EXPECT_TRUE(changes[i].status.ok()) << i;
  EXPECT_EQ(model->store->Stats()->slot_count, 1u);
}

}  // namespace
}  // namespace odmoe
