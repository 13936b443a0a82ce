// What two hosts do for each other: experts streamed over a path that breaks, and experts computed
// where they are.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

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
#include "tests/support/expert_storage_server.h"
#include "tests/support/faulty_expert_source.h"
#include "xxhash.h"

namespace odmoe {
namespace {

// A TCP relay that breaks the second connection, or spoils a byte of it, after so many bytes from
// the server. A source's first connection asks what there is, its second reads.
class BadPath {
 public:
  // `cut` bytes pass; byte number `spoil` is flipped. 0: neither.
  BadPath(const std::string& to, int64_t cut, int64_t spoil)
      : to_port_(static_cast<uint16_t>(std::stoi(to.substr(to.rfind(':') + 1)))),
        cut_(cut), spoil_(spoil), listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in name = Loopback(0);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
    EXPECT_EQ(listen(listener_, 16), 0);
    socklen_t size = sizeof(name);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&name), &size);
    endpoint_ = absl::StrCat("127.0.0.1:", ntohs(name.sin_port));
    accepting_ = std::thread([this] { Accept(); });
  }
  ~BadPath() {
    stop_ = true;
    accepting_.join();
    for (std::thread& relay : relays_) relay.join();
    close(listener_);
  }

  const std::string& endpoint() const { return endpoint_; }
  // From the server, over all connections.
  int64_t passed() const { return passed_; }
  int connections() const { return connections_; }

 private:
  static constexpr int kPollMs = 10;

  static sockaddr_in Loopback(uint16_t port) {
    sockaddr_in name = {};
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return name;
  }

  void Accept() {
    pollfd wait = {listener_, POLLIN, 0};
    while (!stop_) {
      if (poll(&wait, 1, kPollMs) <= 0) continue;
      const int near = accept(listener_, nullptr, nullptr);
      const int far = socket(AF_INET, SOCK_STREAM, 0);
      const sockaddr_in name = Loopback(to_port_);
      EXPECT_EQ(connect(far, reinterpret_cast<const sockaddr*>(&name), sizeof(name)), 0);
      const bool bad = connections_++ == 1;
      relays_.emplace_back([this, near, far, bad] {
        Relay(near, far, bad ? cut_ : 0, bad ? spoil_ : 0);
        close(near);
        close(far);
      });
    }
  }

  void Relay(int near, int far, int64_t cut, int64_t spoil) {
    std::vector<char> bytes(1 << 16);
    int64_t here = 0;
    pollfd waits[] = {{near, POLLIN, 0}, {far, POLLIN, 0}};
    while (!stop_) {
      if (poll(waits, 2, kPollMs) <= 0) continue;
      for (const bool from_server : {false, true}) {
        if (waits[from_server ? 1 : 0].revents == 0) continue;
        size_t room = bytes.size();
        if (from_server && cut > 0) room = std::min<size_t>(room, cut - here);
        const ssize_t got = read(from_server ? far : near, bytes.data(), room);
        if (got <= 0) return;
        if (from_server) {
          if (spoil >= here && spoil < here + got && spoil > 0) bytes[spoil - here] ^= 1;
          here += got;
          passed_ += got;
        }
        for (ssize_t sent = 0; sent < got;) {
          const ssize_t n = send(from_server ? near : far, bytes.data() + sent, got - sent,
                                 MSG_NOSIGNAL);
          if (n <= 0) return;
          sent += n;
        }
        if (from_server && cut > 0 && here == cut) {
          End(near);
          return;
        }
      }
    }
  }

  // The near end receives all that has passed, and then the end: were what it still sends not read,
  // it would be reset, and lose what it has not read yet.
  void End(int near) {
    shutdown(near, SHUT_WR);
    pollfd wait = {near, POLLIN, 0};
    for (char bytes[4096]; !stop_;) {
      if (poll(&wait, 1, kPollMs) > 0 && read(near, bytes, sizeof(bytes)) <= 0) return;
    }
  }

  const uint16_t to_port_;
  const int64_t cut_, spoil_;
  const int listener_;
  std::string endpoint_;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> passed_{0};
  std::atomic<int> connections_{0};
  std::thread accepting_;
  std::vector<std::thread> relays_;  // the accepting thread's
};

// Small numbers, so that products stay finite.
std::unique_ptr<MemoryExpertSource> Experts(int64_t dim, int64_t ffn,
                                            const std::string& digest = "0123") {
  LayerExperts layer;
  layer.layer = 3;
  layer.expert_count = 6;
  layer.layout = MakeExpertLayout(DType::kF32, DType::kF32, DType::kF32, dim, ffn).value();
  std::vector<std::vector<std::byte>> experts(layer.expert_count);
  uint32_t state = 7;
  for (auto& bytes : experts) {
    bytes.resize(layer.layout.bytes);
    for (size_t i = 0; i < bytes.size(); i += sizeof(float)) {
      state = state * 1664525u + 1013904223u;
      const float value = static_cast<float>(state >> 8) / static_cast<float>(1 << 24) - 0.5f;
      std::memcpy(bytes.data() + i, &value, sizeof(value));
    }
  }
  for (const auto& bytes : experts) layer.xxh3.push_back(XXH3_64bits(bytes.data(), bytes.size()));
  auto catalog = ExpertCatalog::Create(digest, {layer}).value();
  return MemoryExpertSource::Create(std::move(catalog), std::move(experts)).value();
}

class RemoteHostsTest : public ::testing::Test {
 protected:
  void Serve(int64_t dim, int64_t ffn, int compute_threads, int64_t slots = 6,
             absl::Duration stream_patience = absl::Seconds(30)) {
    truth_ = Experts(dim, ffn);
    server_ = std::make_unique<ExpertStorageTestServer>(StoreHost::Options(), compute_threads,
                                                        stream_patience);
    ServeModel(Experts(dim, ffn), slots);
  }

  void ServeModel(std::unique_ptr<MemoryExpertSource> experts, int64_t slots) {
    auto source = std::make_unique<FaultyExpertSource>(std::move(experts), faults_);
    CachingExpertStore::Options options;
    options.budget_bytes = slots * SlotBytes(source->catalog().max_expert_bytes());
    options.shareable = true;
    ASSERT_TRUE(server_->models
                    .Serve("model", CachingExpertStore::Create(std::move(source),
                                                               std::move(options)).value())
                    .ok());
  }

  // Reads one expert through a bad path.
  absl::Status Read(const BadPath& path, std::shared_ptr<const ReadControl> control = nullptr) {
    const auto source = ConnectRemoteSource(path.endpoint(), "model", OneStream()).value();
    return Read(*source, std::move(control));
  }

  static RemoteSourceOptions OneStream() {
    RemoteSourceOptions options;
    options.streams = 1;
    return options;
  }

  absl::Status Read(ExpertSource& from, std::shared_ptr<const ReadControl> control = nullptr) {
    AlignedBuffer buffer = AlignedBuffer::Allocate(
        SlotBytes(from.catalog().max_expert_bytes())).value();
    absl::Status result;
    absl::Notification done;
    from.Read({3, 1}, buffer.span(), std::move(control), [&](absl::Status status) {
      result = std::move(status);
      done.Notify();
    });
    done.WaitForNotification();
    const auto expected = truth_->Bytes({3, 1});
    if (result.ok()) {
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), buffer.span().begin()));
    }
    return result;
  }

  // What this process computes.
  std::vector<float> Expected(int32_t expert, absl::Span<const float> hidden, int64_t tokens,
                              absl::Span<const int32_t> chosen) {
    const ExpertLayout& layout = truth_->catalog().layers()[0].layout;
    Activations x;
    x.Set(hidden.data(), tokens, layout.w1.columns, layout.w1.columns);
    std::vector<float> output(chosen.size() * layout.w2.rows);
    const ExpertWork work = {truth_->Bytes({3, expert}).data(), expert, chosen, output.data()};
    ComputePool pool(1);
    ExpertMlp().Run(pool, layout, {}, x, {&work, 1});
    return output;
  }

  std::shared_ptr<ReadFaults> faults_ = std::make_shared<ReadFaults>();
  std::unique_ptr<MemoryExpertSource> truth_;
  std::unique_ptr<ExpertStorageTestServer> server_;
};

constexpr int64_t kChunk = 2 << 20;

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

// A store that says what a test wants, of a model that a real one has described.
class ScriptedStore : public expert_storage::v1::ExpertStorageService::CallbackService {
 public:
  using Request = expert_storage::v1::ReadExpertRequest;
  using Response = expert_storage::v1::ReadExpertResponse;
  using Out = StreamWriter<Response>;
  // Call after call of ReadExpert; the last one again and again.
  using Script = std::function<absl::Status(const Request&, Out&)>;

  explicit ScriptedStore(const std::string& real) {
    grpc::ClientContext context;
    const auto stub = expert_storage::v1::ExpertStorageService::NewStub(MakeChannel(real).value());
    EXPECT_TRUE(stub->DescribeModel(&context, {}, &description_).ok());
    RpcServerOptions options;
    options.services = {this};
    server_ = RpcServer::Start(options).value();
  }
  ~ScriptedStore() override { server_->Shutdown(absl::Now()); }

  const std::string& endpoint() const { return server_->address(); }
  void Play(std::vector<Script> scripts) {
    scripts_ = std::move(scripts);
    calls_ = 0;
  }
  size_t calls() const { return calls_; }

  static bool Header(Out& out, int64_t epoch, uint64_t bytes) {
    Response response;
    response.mutable_header()->set_epoch(epoch);
    response.mutable_header()->set_size_bytes(static_cast<int64_t>(bytes));
    return out.Write(response);
  }
  static bool Chunk(Out& out, absl::Span<const std::byte> bytes) {
    Response response;
    response.set_chunk(bytes.data(), bytes.size());
    return out.Write(response);
  }
  // Until the caller has gone.
  static absl::Status Hang(Out& out) {
    while (!out.call().cancellation->cancelled()) std::this_thread::yield();
    return absl::CancelledError("the caller is gone");
  }

 private:
  grpc::ServerUnaryReactor* DescribeModel(
      grpc::CallbackServerContext* context, const expert_storage::v1::DescribeModelRequest*,
      expert_storage::v1::DescribeModelResponse* response) override {
    *response = description_;
    for (auto& layer : *response->mutable_layers()) layer.clear_xxh3();  // bytes are not checked
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  grpc::ServerWriteReactor<Response>* ReadExpert(grpc::CallbackServerContext* context,
                                                 const Request* request) override {
    return ServeStream<Response>(context, pool_, [this, request](Out& out) {
      const size_t call = calls_++;
      return scripts_[std::min(call, scripts_.size() - 1)](*request, out);
    });
  }

  expert_storage::v1::DescribeModelResponse description_;
  std::vector<Script> scripts_;
  std::atomic<size_t> calls_{0};
  ThreadPool pool_{4};
  std::unique_ptr<RpcServer> server_;
};

class ScriptedStoreTest : public RemoteHostsTest {
 protected:
  void SetUp() override {
    Serve(96, 64, 0);
    script_ = std::make_unique<ScriptedStore>(server_->endpoint);
    expert_ = truth_->Bytes({3, 1});
    RemoteSourceOptions options = OneStream();
    options.patience = absl::Milliseconds(300);
    source_ = ConnectRemoteSource(script_->endpoint(), "model", options).value();
  }
  void TearDown() override { source_ = nullptr; }

  std::unique_ptr<ScriptedStore> script_;
  std::unique_ptr<ExpertSource> source_;
  absl::Span<const std::byte> expert_;
};

using Out = ScriptedStore::Out;
using ReadRequest = ScriptedStore::Request;

TEST_F(ScriptedStoreTest, WhatIsNoExpertIsRefused) {
  struct Row {
    const char* name;
    ScriptedStore::Script script;
    absl::StatusCode code;
  };
  const auto store = [this](std::function<void(Out&)> say) {
    return [say](const ReadRequest&, Out& out) -> absl::Status {
      say(out);
      return absl::OkStatus();
    };
  };
  const uint64_t size = expert_.size();
  const std::vector<std::byte> more(size + 1);
  for (const Row& row : std::vector<Row>{
           {"a byte too many", store([&](Out& out) {
              ScriptedStore::Header(out, 7, size);
              ScriptedStore::Chunk(out, more);
            }), absl::StatusCode::kInternal},
           {"no header", store([&](Out& out) { ScriptedStore::Chunk(out, expert_); }),
            absl::StatusCode::kInternal},
           {"a header of another size",
            store([&](Out& out) { ScriptedStore::Header(out, 7, uint64_t{1} << 62); }),
            absl::StatusCode::kFailedPrecondition},
           {"neither header nor chunk", store([](Out& out) { out.Write({}); }),
            absl::StatusCode::kInternal},
           {"an end without bytes", store([&](Out& out) { ScriptedStore::Header(out, 7, size); }),
            absl::StatusCode::kUnavailable},
           {"empty chunks for ever", store([&](Out& out) {
              ScriptedStore::Header(out, 7, size);
              while (ScriptedStore::Chunk(out, {})) {
              }
            }), absl::StatusCode::kUnavailable},
           {"silence", [](const ReadRequest&, Out& out) { return ScriptedStore::Hang(out); },
            absl::StatusCode::kUnavailable},
       }) {
    script_->Play({row.script});
    const absl::Status status = Read(*source_);
    EXPECT_EQ(status.code(), row.code) << row.name << ": " << status;
    EXPECT_THAT(status.message(), ::testing::Not(::testing::IsEmpty())) << row.name;
  }
}

TEST_F(ScriptedStoreTest, AnEndThatDoesNotComeIsNotWaitedFor) {
  script_->Play({[&](const ReadRequest&, Out& out) {
    ScriptedStore::Header(out, 7, expert_.size());
    ScriptedStore::Chunk(out, expert_);
    return ScriptedStore::Hang(out);
  }});
  EXPECT_TRUE(Read(*source_).ok());
  EXPECT_EQ(script_->calls(), 1u);
}

TEST_F(ScriptedStoreTest, AStoreThatStallsIsAskedAgainForTheRest) {
  constexpr size_t kFirst = 1000;
  script_->Play({[&](const ReadRequest&, Out& out) {
                   ScriptedStore::Header(out, 7, expert_.size());
                   ScriptedStore::Chunk(out, expert_.first(kFirst));
                   return ScriptedStore::Hang(out);
                 },
                 [&](const ReadRequest& request, Out& out) {
                   EXPECT_EQ(request.offset_bytes(), int64_t{kFirst});
                   EXPECT_EQ(request.epoch(), 7);
                   ScriptedStore::Header(out, 7, expert_.size());
                   ScriptedStore::Chunk(out, expert_.subspan(kFirst));
                   return absl::OkStatus();
                 }});
  EXPECT_TRUE(Read(*source_).ok());
  EXPECT_EQ(script_->calls(), 2u);
}

TEST_F(ScriptedStoreTest, AStoreThatStartsAgainIsReadFromTheBeginning) {
  script_->Play({[&](const ReadRequest&, Out& out) {
                   // What the former store sent must not become a part of the expert.
                   ScriptedStore::Header(out, 7, expert_.size());
                   ScriptedStore::Chunk(out, std::vector<std::byte>(500));
                   return absl::UnavailableError("going away");
                 },
                 [](const ReadRequest& request, Out&) {
                   EXPECT_EQ(request.epoch(), 7);
                   return absl::AbortedError("epoch 7 has passed");
                 },
                 [&](const ReadRequest& request, Out& out) {
                   EXPECT_EQ(request.epoch(), 0);
                   EXPECT_EQ(request.offset_bytes(), 0);
                   ScriptedStore::Header(out, 8, expert_.size());
                   ScriptedStore::Chunk(out, expert_);
                   return absl::OkStatus();
                 }});
  EXPECT_TRUE(Read(*source_).ok());
  EXPECT_EQ(script_->calls(), 3u);
}

TEST_F(ScriptedStoreTest, ASourcesEndEndsItsReads) {
  script_->Play({[](const ReadRequest&, Out& out) { return ScriptedStore::Hang(out); }});
  AlignedBuffer buffer = AlignedBuffer::Allocate(SlotBytes(expert_.size())).value();
  absl::Status result;
  source_->Read({3, 1}, buffer.span(), nullptr,
                [&](absl::Status status) { result = std::move(status); });
  source_ = nullptr;
  EXPECT_FALSE(result.ok());
}

}  // namespace
}  // namespace odmoe
