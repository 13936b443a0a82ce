// Stores and clients that die, as processes of their own.
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/remote_expert_source.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/experts/memory_expert_source.h"
#include "services/core/io/aligned_buffer.h"
#include "tests/support/expert_directory.h"
#include "tests/support/subprocess.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(1);

class ExpertStorageFaultsTest : public ::testing::Test {
 protected:
  static constexpr int32_t kExperts = 16;

  ExpertStorageFaultsTest() {
    MemoryExpertSource::RandomOptions shape;
    shape.layers = 2;
    shape.experts_per_layer = kExperts;
    shape.dim = 128;
    shape.ffn = 256;
    truth_ = WriteRandomExperts(directory_ / "models/model", shape);
    StartStore();
  }

  // The first time on any port, then on the same.
  void StartStore(std::vector<std::string> more = {}) {
    Subprocess::Options options;
    options.arguments = {absl::StrCat(ODMOE_BIN_DIR, "/odmoe-expert-storage"),
                         "--listen", endpoint_.empty() ? "127.0.0.1:0" : endpoint_,
                         "--model", directory_ / "models/model",
                         "--expert-budget", "25%",
                         "--socket-dir", directory_.path()};
    options.arguments.insert(options.arguments.end(), more.begin(), more.end());
    auto process = Subprocess::Start(options);
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *std::move(process);
    const auto line = process_->WaitForLine("listening on ", kPatience);
    ASSERT_TRUE(line.ok()) << line.status();
    endpoint_ = line->substr(line->rfind(' ') + 1);
  }

  std::unique_ptr<ExpertStore> Connect() {
    auto store = ConnectSharedMemoryStore(endpoint_, "model");
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

  bool BytesAreRight(const ExpertView& view, ExpertId id) const {
    const auto expected = truth_->Bytes(id);
    return std::equal(expected.begin(), expected.end(), view.data);
  }

  // Acquires until it works; a minute at most.
  void AwaitService(ExpertStore& store) {
    absl::Status last;
    for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;
         std::this_thread::yield()) {
      const auto batch = store.Acquire({{1, 1}}, absl::Now() + absl::Seconds(5));
      last = batch.status();
      if (!batch.ok()) continue;
      const auto view = (*batch)->Wait(0);
      last = view.status();
      if (view.ok()) {
        EXPECT_TRUE(BytesAreRight(*view, {1, 1}));
        return;
      }
    }
    ADD_FAILURE() << "the store never came back: " << last;
  }

  // Polls the store's counters; a minute at most.
  StoreStats AwaitStats(const std::function<bool(const StoreStats&)>& condition) {
    const auto admin = ExpertStorageAdmin::Connect(endpoint_).value();
    StoreStats stats;
    for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;
         std::this_thread::yield()) {
      stats = admin->Stats("")->store;
      if (condition(stats)) return stats;
    }
    ADD_FAILURE() << "the statistics never got there: clients " << stats.clients << ", pinned "
                  << stats.pinned_experts;
    return stats;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<MemoryExpertSource> truth_;
  std::string endpoint_;
  std::unique_ptr<Subprocess> process_;
};

TEST_F(ExpertStorageFaultsTest, AKilledStoreIsUnavailableAndAPinnedExpertStaysReadable) {
  const auto store = Connect();
  ASSERT_NE(store, nullptr);
  const auto batch = store->Acquire({{0, 0}, {0, 1}}, absl::Now() + kPatience).value();
  ASSERT_TRUE(batch->Wait(0).ok() && batch->Wait(1).ok());
  process_->Kill();
  absl::Status status;
  for (const absl::Time end = absl::Now() + kPatience; status.ok() && absl::Now() < end;) {
    status = store->Acquire({{0, 0}}, absl::Now() + kPatience).status();
  }
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_TRUE(absl::IsUnavailable(store->Stats().status()));
  store->Prefetch({{0, 3}});
  EXPECT_TRUE(BytesAreRight(*batch->Wait(0), {0, 0}));
  EXPECT_TRUE(BytesAreRight(*batch->Wait(1), {0, 1}));
}

TEST_F(ExpertStorageFaultsTest, ARestartedStoreServesTheSameClientAgain) {
  const auto store = Connect();
  ASSERT_NE(store, nullptr);
  AwaitService(*store);
  const auto old_batch = store->Acquire({{0, 0}}, absl::Now() + kPatience).value();
  ASSERT_TRUE(old_batch->Wait(0).ok());
  process_->Kill();
  StartStore();
  AwaitService(*store);
  // What was pinned of the store before is still that.
  EXPECT_TRUE(BytesAreRight(*old_batch->Wait(0), {0, 0}));
  const auto other = Connect();
  ASSERT_NE(other, nullptr);
  AwaitService(*other);
}

TEST_F(ExpertStorageFaultsTest, TheFirstCallAfterARestartFindsTheStore) {
  const auto store = Connect();
  ASSERT_NE(store, nullptr);
  for (int kill = 0; kill < 3; ++kill) {
    AwaitService(*store);
    process_->Kill();
    while (store->Acquire({{1, 1}}, absl::Now() + kPatience).ok()) std::this_thread::yield();
    // Now it has looked for the store in vain, however short a time ago.
    while (!absl::IsUnavailable(store->Stats().status())) std::this_thread::yield();
    StartStore();
    const auto batch = store->Acquire({{1, 1}}, absl::Now() + kPatience);
    ASSERT_TRUE(batch.ok()) << batch.status();
    EXPECT_TRUE((*batch)->Wait(0).ok());
  }
}

TEST_F(ExpertStorageFaultsTest, KilledUnderLoadNoByteIsWrongAndEveryCallerComesBack) {
  const auto store = Connect();
  ASSERT_NE(store, nullptr);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, right{0}, right_since_restart{0}, strange{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t) {
    callers.emplace_back([&, t] {
      for (int round = t; !stop.load(); round += 3) {
        const std::vector<ExpertId> ids = {{round % 2, (round * 7) % kExperts},
                                           {round % 2, (round * 5 + 1) % kExperts}};
        const auto batch = store->Acquire(ids, absl::Now() + absl::Seconds(10));
        absl::Status status = batch.status();
        for (size_t i = 0; status.ok() && i < ids.size(); ++i) {
          const auto view = (*batch)->Wait(i);
          status = view.status();
          if (!view.ok()) break;
          (BytesAreRight(*view, ids[i]) ? right : wrong).fetch_add(1);
          right_since_restart.fetch_add(1);
        }
        if (!status.ok() && !absl::IsUnavailable(status)) strange.fetch_add(1);
      }
    });
  }
  const auto await = [](const std::atomic<int>& count, int at_least) {
    for (const absl::Time end = absl::Now() + kPatience;
         count.load() < at_least && absl::Now() < end;) {
      std::this_thread::yield();
    }
    return count.load() >= at_least;
  };
  for (int kill = 0; kill < 3; ++kill) {
    EXPECT_TRUE(await(right, 50 * (kill + 1)));
    process_->Kill();
    StartStore();
    right_since_restart = 0;
    EXPECT_TRUE(await(right_since_restart, 50));
  }
  stop = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(strange, 0);
}

TEST_F(ExpertStorageFaultsTest, AStoreThatHangsIsWaitedForNoLongerThanTheDeadline) {
  const auto store = Connect();
  ASSERT_NE(store, nullptr);
  process_->Signal(SIGSTOP);
  {
    const auto batch = store->Acquire({{1, 7}}, absl::Now() + absl::Milliseconds(100));
    ASSERT_TRUE(batch.ok()) << batch.status();
    const auto view = (*batch)->Wait(0);
    EXPECT_TRUE(absl::IsDeadlineExceeded(view.status())) << view.status();
  }
  process_->Signal(SIGCONT);
  AwaitService(*store);
  AwaitStats([](const StoreStats& stats) { return stats.pinned_experts == 0; });
}

TEST_F(ExpertStorageFaultsTest, AKilledClientsPinsAreGone) {
  for (int round = 0; round < 3; ++round) {
    auto client = Subprocess::Start({{absl::StrCat(ODMOE_TESTS_DIR, "/odmoe_pinning_client"),
                                      endpoint_, "0", "1", "2", "3"},
                                     {},
                                     ""});
    ASSERT_TRUE(client.ok()) << client.status();
    const auto line = (*client)->WaitForLine("pinned", kPatience);
    ASSERT_TRUE(line.ok()) << line.status();
    AwaitStats([](const StoreStats& s) { return s.pinned_experts == 3 && s.clients == 1; });
    (*client)->Kill();
    AwaitStats([](const StoreStats& s) { return s.pinned_experts == 0 && s.clients == 0; });
  }
}

TEST_F(ExpertStorageFaultsTest, AClientsEndFreesItsSlotsForOthers) {
  // Eight slots, of which the client takes four, and this process needs five.
  auto client = Subprocess::Start({{absl::StrCat(ODMOE_TESTS_DIR, "/odmoe_pinning_client"),
                                    endpoint_, "0", "1", "2", "3", "4"},
                                   {},
                                   ""});
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE((*client)->WaitForLine("pinned", kPatience).ok());
  const auto store = Connect();
  ASSERT_NE(store, nullptr);
  const auto four =
      store->Acquire({{1, 0}, {1, 1}, {1, 2}, {1, 3}}, absl::Now() + kPatience).value();
  for (size_t i = 0; i < 4; ++i) ASSERT_TRUE(four->Wait(i).ok());
  const auto fifth = store->Acquire({{1, 4}}, absl::Now() + kPatience).value();
  AwaitStats([](const StoreStats& s) { return s.pinned_experts == 8 && s.misses == 9; });
  EXPECT_FALSE(fifth->Ready(0));
  (*client)->Kill();
  const auto view = fifth->Wait(0);
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_TRUE(BytesAreRight(*view, {1, 4}));
}

TEST_F(ExpertStorageFaultsTest, AKilledStoreFailsRemoteReadsAndARestartedOneServesThem) {
  RemoteSourceOptions options;
  options.patience = absl::Milliseconds(300);
  const auto source = ConnectRemoteSource(endpoint_, "model", options).value();
  auto buffer = AlignedBuffer::Allocate(truth_->catalog().max_expert_bytes() + 4096).value();
  ASSERT_TRUE(ReadAndWait(*source, {0, 0}, buffer.span()).ok());
  process_->Kill();
  const absl::Status gone = ReadAndWait(*source, {0, 1}, buffer.span());
  EXPECT_TRUE(absl::IsUnavailable(gone)) << gone;
  StartStore();
  absl::Status back;
  for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;) {
    back = ReadAndWait(*source, {0, 1}, buffer.span());
    if (back.ok()) break;
  }
  ASSERT_TRUE(back.ok()) << back;
  EXPECT_TRUE(BytesAreRight({buffer.data(), nullptr}, {0, 1}));
}

TEST_F(ExpertStorageFaultsTest, TerminatedItDrainsCleansUpAndEndsWell) {
  const auto store = Connect();
  ASSERT_NE(store, nullptr);
  AwaitService(*store);
  process_->Signal(SIGTERM);
  const auto exit = process_->Wait(kPatience);
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_EQ(exit->signal, 0);
  EXPECT_EQ(exit->code, 0) << process_->err();
  for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
    EXPECT_FALSE(entry.is_socket()) << entry.path();
  }
}

TEST_F(ExpertStorageFaultsTest, AStoreWithoutEnoughDescriptorsServesAgainOnceThereAreSome) {
  // Ends the one of the fixture: this one may open few files.
  process_->Kill();
  const std::string endpoint_file = directory_ / "endpoint";
  Subprocess::Options options;
  options.arguments = {"/bin/sh", "-c",
                       absl::StrCat("ulimit -n 64; exec ", ODMOE_BIN_DIR,
                                    "/odmoe-expert-storage --model ", directory_ / "models/model",
                                    " --expert-budget 25% --endpoint-file ", endpoint_file,
                                    " --socket-dir ", directory_.path())};
  process_ = Subprocess::Start(options).value();
  const auto line = process_->WaitForLine("listening on ", kPatience);
  ASSERT_TRUE(line.ok()) << line.status();
  endpoint_ = line->substr(line->rfind(' ') + 1);
  EXPECT_EQ(ReadFileOrDie(endpoint_file), endpoint_ + "\n");
  {
    std::vector<std::unique_ptr<ExpertStore>> crowd;
    for (int i = 0; i < 100; ++i) {
      auto store = ConnectSharedMemoryStore(endpoint_, "model");
      if (!store.ok()) break;
      crowd.push_back(*std::move(store));
    }
    EXPECT_LT(crowd.size(), 100u);
    EXPECT_GT(crowd.size(), 0u);
  }
  absl::Status last;
  for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;) {
    auto store = ConnectSharedMemoryStore(endpoint_, "model");
    last = store.status();
    if (!store.ok()) continue;
    AwaitService(**store);
    return;
  }
  ADD_FAILURE() << "the store never served again: " << last;
}

}  // namespace
}  // namespace odmoe
