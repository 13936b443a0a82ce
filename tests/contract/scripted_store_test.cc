// What a source makes of a store that says what it should not, or nothing.
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
