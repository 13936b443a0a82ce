// Stores and clients that die, as processes of their own.
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/remote_expert_source.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/io/aligned_buffer.h"
#include "services/core/io/owned_fd.h"
#include "tests/faults/store_process.h"

namespace odmoe {
namespace {

class ExpertStorageFaultsTest : public StoreProcessTest {
 protected:
  // Instead of the one that runs.
  void StartStoreWithFewDescriptors() {
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
  }

  // New clients, who may be refused a while.
  void ExpectServedAgain() {
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
  StartStoreWithFewDescriptors();
  if (HasFatalFailure()) return;
  {
    std::vector<std::unique_ptr<ExpertStore>> crowd;
    for (int i = 0; i < 100; ++i) {
      auto store = ConnectSharedMemoryStore(endpoint_, "model");
      if (!store.ok()) {
        // Told, not crashed: there is no descriptor for its pin page, or for its connection.
        EXPECT_TRUE(absl::IsResourceExhausted(store.status()) ||
                    absl::IsUnavailable(store.status()) ||
                    absl::IsDeadlineExceeded(store.status()))
            << store.status();
        break;
      }
      crowd.push_back(*std::move(store));
    }
    // Who is in goes on as if nothing were the matter.
    AwaitService(*crowd[0]);
    EXPECT_LT(crowd.size(), 100u);
    EXPECT_GT(crowd.size(), 0u);
  }
  ExpectServedAgain();
}

TEST_F(ExpertStorageFaultsTest, ACrowdAtTheDescriptorSocketKeepsNobodyOutForLong) {
  StartStoreWithFewDescriptors();
  if (HasFatalFailure()) return;
  const auto before = Connect();
  ASSERT_NE(before, nullptr);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
    const std::string path = entry.path();
    if (absl::StrContains(path, absl::StrCat("-", process_->pid(), "."))) {
      path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    }
  }
  ASSERT_NE(address.sun_path[0], '\0');
  std::vector<OwnedFd> crowd;
  for (int i = 0; i < 200; ++i) {
    crowd.emplace_back(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(crowd.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)),
              0);
  }
  // A quarter is kept back for the work of those who are in.
  EXPECT_TRUE(Await([&] { return OpenDescriptors(process_->pid()) >= 48; }));
  AwaitService(*before);
  crowd.clear();
  ExpectServedAgain();
}

}  // namespace
}  // namespace odmoe
