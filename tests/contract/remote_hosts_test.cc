// What two hosts do for each other: experts streamed over a path that breaks, and experts computed
// where they are.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_stream.h"
#include "clients/cpp/remote_expert_executor.h"
#include "clients/cpp/remote_expert_source.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/experts/memory_expert_source.h"
#include "services/core/io/aligned_buffer.h"
#include "services/core/kernels/expert_mlp.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/server.h"
#include "services/core/rpc/server_stream.h"
#include "tests/contract/remote_hosts.h"
#include "tests/support/expert_storage_server.h"
#include "tests/support/faulty_expert_source.h"
#include "xxhash.h"

namespace odmoe {
namespace {

TEST_F(RemoteHostsTest, AnotherModelOfThatNameIsRefusedAndTheSameOneReadOn) {
  Serve(96, 64, 1);
  const auto source = ConnectRemoteSource(server_->endpoint, "model", OneStream()).value();
  const auto executor = ConnectRemoteExecutor(server_->endpoint, "model").value();
  EXPECT_TRUE(Read(*source).ok());
  // Another store of the same experts, as after a restart.
  ASSERT_TRUE(server_->models.Close("model").ok());
  ServeModel(Experts(96, 64), 6);
  EXPECT_TRUE(Read(*source).ok());
  // Other experts of the same shape.
  ASSERT_TRUE(server_->models.Close("model").ok());
  ServeModel(Experts(96, 64, "4567"), 6);
  absl::Status status = Read(*source);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(status.message(), ::testing::HasSubstr("another model's"));
  const std::vector<float> hidden(96, 0.5f);
  const std::vector<int32_t> token = {0};
  const std::vector<TokensOfExpert> experts = {{1, token}};
  status = executor->Execute(3, 1, hidden, experts, absl::InfiniteFuture()).value()->Wait(0)
               .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  ASSERT_TRUE(server_->models.Close("model").ok());
  EXPECT_EQ(Read(*source).code(), absl::StatusCode::kNotFound);
}

TEST_F(RemoteHostsTest, AReadGoesOnAfterACutAtEveryChunk) {
  Serve(640, 640, 0);
  const auto bytes = static_cast<int64_t>(truth_->catalog().max_expert_bytes());
  ASSERT_GT(bytes, 2 * kChunk);
  int resumed = 0;
  // In the beginning of each chunk, in its midst and at its end.
  for (int64_t at = 0; at < bytes; at += kChunk) {
    for (const int64_t cut : {at + 600, at + kChunk / 2, at + kChunk + 100}) {
      BadPath path(server_->endpoint, std::min(cut, bytes - 1), 0);
      const absl::Status status = Read(path);
      ASSERT_TRUE(status.ok()) << "cut after " << cut << ": " << status;
      EXPECT_EQ(path.connections(), 3) << cut;
      // When a connection breaks gRPC drops what it has not handed over yet, which on a busy host
      // may be all that had come. But once it was cut, nothing is sent a third time.
      EXPECT_LT(path.passed(), bytes + cut + kChunk / 4) << cut;
      resumed += path.passed() < bytes + kChunk + kChunk / 4 && cut > 2 * kChunk ? 1 : 0;
    }
  }
  // As a rule only the chunk that was cut is sent again.
  EXPECT_GT(resumed, 0);
}

TEST_F(RemoteHostsTest, AByteSpoiltOnTheWayIsDataLoss) {
  Serve(320, 320, 0);
  BadPath path(server_->endpoint, 0, 300000);
  const absl::Status status = Read(path);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(status.message(), ::testing::HasSubstr("arrived corrupt"));
}

TEST_F(RemoteHostsTest, AReadThatNobodyWantsAnyMoreEnds) {
  Serve(320, 320, 0);
  faults_->Hold();
  BadPath path(server_->endpoint, 0, 0);
  auto control = std::make_shared<ReadControl>(ReadControl::Urgency::kDemand);
  std::thread cancel([&] {
    faults_->AwaitHeld(1);
    control->Cancel();
  });
  EXPECT_EQ(Read(path, control).code(), absl::StatusCode::kCancelled);
  cancel.join();
  faults_->Release();
}

TEST_F(RemoteHostsTest, AClientThatTakesNothingHoldsNoSlotForLong) {
  Serve(640, 640, 0, /*slots=*/6, absl::Milliseconds(100));
  expert_storage::v1::ReadExpertRequest request;
  request.mutable_expert()->set_layer(3);
  ExpertStream stream(MakeChannel(server_->endpoint).value(), request, absl::InfiniteFuture(),
                      [] { return true; });
  grpc::ByteBuffer message;
  ASSERT_TRUE(stream.Read(message));
  // Nothing is read any more, and yet the pin goes.
  ExpertStore& store = *server_->models.Find("").value()->store;
  for (const absl::Time end = absl::Now() + absl::Minutes(1); absl::Now() < end;) {
    if (store.Stats()->pinned_experts == 0) break;
    std::this_thread::yield();
  }
  EXPECT_EQ(store.Stats()->pinned_experts, 0u);
  // A client that reads on finds its stream cut off, unless the transport had taken all of it.
  uint64_t received = 0;
  while (stream.Read(message)) received += message.Length();
  const uint64_t expert_bytes = store.catalog().max_expert_bytes();
  EXPECT_TRUE(!stream.Finish().ok() || received >= expert_bytes) << received;
}

TEST_F(RemoteHostsTest, MessagesAreTakenApartOrRefused) {
  const auto parse = [](const std::vector<std::string>& pieces) {
    std::vector<grpc::Slice> slices(pieces.begin(), pieces.end());
    return ParseExpertStreamPart(grpc::ByteBuffer(slices.data(), slices.size()));
  };
  const std::string big(300, 'x');
  // A chunk of 300 bytes: tag, varint, bytes, however they are cut.
  for (const std::vector<std::string>& pieces :
       {std::vector<std::string>{"\x12\xac\x02" + big}, {"\x12", "\xac", "\x02", big},
        {"\x12\xac", "\x02" + big.substr(0, 7), big.substr(7)}}) {
    const auto part = parse(pieces);
    ASSERT_TRUE(part.ok()) << part.status();
    EXPECT_FALSE(part->header);
    EXPECT_EQ(part->chunk_bytes, 300u);
  }
  expert_storage::v1::ReadExpertResponse header;
  header.mutable_header()->set_epoch(5);
  const auto part = parse({header.SerializeAsString()});
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(part->header->epoch(), 5);
  for (const std::vector<std::string>& pieces :
       {std::vector<std::string>{""}, {"\x12"}, {"\x12\xac"}, {"\x12\xac\x02" + big + "y"},
        {"\x12\xac\x02" + big.substr(1)}, {"\x12" + std::string(12, '\xff')}, {"\xff\xff"}}) {
    EXPECT_EQ(parse(pieces).status().code(), absl::StatusCode::kInternal);
  }
}

TEST_F(RemoteHostsTest, OutputsAreBitForBitThoseOfThisProcess) {
  constexpr int64_t kDim = 96, kTokens = 5;
  // Fewer slots than experts: it takes several waves.
  Serve(kDim, 64, 2, /*slots=*/4);
  const auto executor = ConnectRemoteExecutor(server_->endpoint, "model");
  ASSERT_TRUE(executor.ok()) << executor.status();
  std::vector<float> hidden(kTokens * kDim);
  for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = std::sin(static_cast<float>(i));
  const std::vector<std::vector<int32_t>> tokens = {{0, 1, 2, 3, 4}, {4}, {1, 3}, {0}};
  const std::vector<TokensOfExpert> experts = {
      {0, tokens[0]}, {2, tokens[1]}, {3, tokens[2]}, {5, tokens[3]}};
  for (int round = 0; round < 2; ++round) {
    auto execution = (*executor)->Execute(3, kTokens, hidden, experts, absl::InfiniteFuture());
    ASSERT_TRUE(execution.ok()) << execution.status();
    for (size_t i = 0; i < experts.size(); ++i) {
      const auto output = (*execution)->Wait(i);
      ASSERT_TRUE(output.ok()) << output.status();
      EXPECT_TRUE((*execution)->Ready(i));
      EXPECT_EQ(std::vector<float>(output->begin(), output->end()),
                Expected(experts[i].expert, hidden, kTokens, experts[i].tokens));
    }
  }
  CachingExpertStore& store = *server_->models.Find("").value()->store;
  EXPECT_EQ(store.Stats()->pinned_experts, 0u);
  // On their own account.
  for (const ClientTelemetry& client : store.Telemetry(false).clients) {
    EXPECT_EQ(client.use.hits + client.use.misses > 0, client.name == "execute") << client.name;
  }
}

TEST_F(RemoteHostsTest, CallersThatTakeNothingHoldUpNobodyForLong) {
  constexpr int64_t kDim = 96, kTokens = 4096;
  Serve(kDim, 64, 1, /*slots=*/6, absl::Milliseconds(100));
  const auto stub = expert_storage::v1::ExpertStorageService::NewStub(
      MakeChannel(server_->endpoint).value());
  expert_storage::v1::ExecuteRequest request;
  request.set_layer(3);
  request.set_token_count(kTokens);
  request.set_hidden(std::string(kTokens * kDim * sizeof(float), '\0'));
  for (int32_t e = 0; e < 4; ++e) {
    auto& expert = *request.add_experts();
    expert.set_expert(e);
    for (int32_t token = 0; token < kTokens; ++token) expert.add_tokens(token);
  }
  // As many as are served at once, and never read.
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<expert_storage::v1::ExecuteResponse>>> silent;
  for (size_t i = 0; i < CachingExpertStore::kExecuteCallers; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    silent.push_back(stub->Execute(contexts.back().get(), request));
  }
  const auto executor = ConnectRemoteExecutor(
      server_->endpoint, "model", {.patience = absl::Minutes(1)}).value();
  const std::vector<float> hidden(kDim, 0.5f);
  const std::vector<int32_t> token = {0};
  const std::vector<TokensOfExpert> experts = {{1, token}};
  const auto execution = executor->Execute(3, 1, hidden, experts, absl::InfiniteFuture()).value();
  EXPECT_TRUE(execution->Wait(0).ok()) << execution->Wait(0).status();
  for (auto& context : contexts) context->TryCancel();
}

TEST_F(RemoteHostsTest, TooManyCallsAreRefusedAtOnce) {
  Serve(96, 64, 1);
  faults_->Hold();
  const auto executor = ConnectRemoteExecutor(
      server_->endpoint, "model", {.patience = absl::Minutes(1)}).value();
  const std::vector<float> hidden(96, 0.5f);
  const std::vector<int32_t> token = {0};
  const std::vector<TokensOfExpert> experts = {{1, token}};
  constexpr size_t kServed = 16;
  std::vector<std::unique_ptr<ExpertExecution>> executions;
  for (size_t i = 0; i <= kServed; ++i) {
    executions.push_back(
        executor->Execute(3, 1, hidden, experts, absl::InfiniteFuture()).value());
  }
  // One of them, whichever came last, while the others wait.
  const auto refused = [&] {
    return std::find_if(executions.begin(), executions.end(),
                        [](const auto& execution) { return execution->Ready(0); });
  };
  for (const absl::Time end = absl::Now() + absl::Minutes(1);
       refused() == executions.end() && absl::Now() < end; std::this_thread::yield()) {
  }
  ASSERT_NE(refused(), executions.end());
  EXPECT_EQ((*refused())->Wait(0).status().code(), absl::StatusCode::kResourceExhausted);
  executions.erase(refused());
  EXPECT_EQ(refused(), executions.end());
  faults_->Release();
  for (const auto& execution : executions) {
    EXPECT_TRUE(execution->Wait(0).ok()) << execution->Wait(0).status();
  }
}

TEST_F(RemoteHostsTest, ACorruptExpertFailsAloneAndADeadStoreAll) {
  Serve(96, 64, 1);
  faults_->Corrupt({3, 2});
  const auto executor = ConnectRemoteExecutor(server_->endpoint, "model").value();
  const std::vector<float> hidden(96, 0.5f);
  const std::vector<int32_t> token = {0};
  const std::vector<TokensOfExpert> experts = {{1, token}, {2, token}, {4, token}};
  auto execution = executor->Execute(3, 1, hidden, experts, absl::InfiniteFuture()).value();
  EXPECT_TRUE(execution->Wait(0).ok());
  EXPECT_EQ(execution->Wait(1).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(execution->Wait(2).ok());

  // Held at its read, the call ends at its deadline, or with the store.
  faults_->Hold();
  const std::vector<TokensOfExpert> absent = {{5, token}};
  execution = executor->Execute(3, 1, hidden, absent, absl::Now() + absl::Milliseconds(50)).value();
  EXPECT_EQ(execution->Wait(0).status().code(), absl::StatusCode::kDeadlineExceeded);
  execution = executor->Execute(3, 1, hidden, absent, absl::InfiniteFuture()).value();
  faults_->AwaitHeld(1);
  EXPECT_FALSE(execution->Ready(0));
  server_->server->Shutdown(absl::Now());
  EXPECT_FALSE(execution->Wait(0).ok());
  faults_->Release();
  execution = executor->Execute(3, 1, hidden, experts, absl::InfiniteFuture()).value();
  EXPECT_EQ(execution->Wait(0).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(RemoteHostsTest, AStoreThatComputesNothingIsFetchedFrom) {
  Serve(96, 64, 0);
  EXPECT_EQ(ConnectRemoteExecutor(server_->endpoint, "model").status().code(),
            absl::StatusCode::kUnimplemented);
  std::string warning;
  EXPECT_EQ(ConnectRemoteExecutor(server_->endpoint, "model", RemoteMode::kExecute, warning)
                .status().code(),
            absl::StatusCode::kUnimplemented);
  const auto none = ConnectRemoteExecutor(server_->endpoint, "model", RemoteMode::kAuto, warning);
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(*none, nullptr);
  EXPECT_THAT(warning, ::testing::HasSubstr("--compute-threads"));
}

}  // namespace
}  // namespace odmoe
