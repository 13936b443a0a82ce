// Stores and clients killed over and over. A few rounds here; ODMOE_FAULT_ROUNDS sets how many (see
// README.md for what was run by hand), ODMOE_FAULT_SEED where they differ.
#include <signal.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/faults/store_process.h"

namespace odmoe {
namespace {

int FromEnvironment(const char* name, int otherwise) {
  int value = 0;
  const char* text = std::getenv(name);
  return text != nullptr && absl::SimpleAtoi(text, &value) && value > 0 ? value : otherwise;
}

class KillCampaignTest : public StoreProcessTest {
 protected:
  // Two experts for each of the clients: none waits for another that waits for it.
  KillCampaignTest() : StoreProcessTest("50%") {}

  static constexpr int kClients = 8;

  std::unique_ptr<Subprocess> StartClient(const std::string& program,
                                          const std::vector<std::string>& arguments) {
    Subprocess::Options options;
    options.arguments = {absl::StrCat(ODMOE_TESTS_DIR, "/", program), endpoint_};
    options.arguments.insert(options.arguments.end(), arguments.begin(), arguments.end());
    auto client = Subprocess::Start(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *std::move(client) : nullptr;
  }

  // Whether every client has got an expert of the store that runs now.
  bool AllServed(ExpertStorageAdmin& admin) {
    const auto stats = admin.Stats("");
    if (!stats.ok()) return false;
    int served = 0;
    for (const ClientTelemetry& client : stats->telemetry.clients) {
      const bool answered = client.use.hits + client.use.misses > client.unanswered;
      served += !client.local && answered ? 1 : 0;
    }
    return served == kClients;
  }

  // The store's, but for the expert files it keeps open.
  size_t StoreDescriptors() {
    const auto stats = ExpertStorageAdmin::Connect(endpoint_).value()->Stats("");
    return OpenDescriptors(process_->pid()) -
           (stats.ok() ? stats->telemetry.source.open_files : 0);
  }

  std::mt19937 random_{static_cast<uint32_t>(FromEnvironment("ODMOE_FAULT_SEED", 1))};
};

TEST_F(KillCampaignTest, AStoreKilledOverAndOverNeverGivesAWrongByteNorLeaksInItsClients) {
  const int rounds = FromEnvironment("ODMOE_FAULT_ROUNDS", 6);
  std::vector<std::unique_ptr<Subprocess>> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(StartClient("odmoe_checking_client", {absl::StrCat(random_() % 100000)}));
    ASSERT_NE(clients.back(), nullptr);
  }
  std::vector<size_t> descriptors;
  std::vector<size_t> mappings;
  absl::Duration slowest;
  for (int round = 0; round < rounds; ++round) {
    const auto admin = ExpertStorageAdmin::Connect(endpoint_).value();
    const absl::Time start = absl::Now();
    ASSERT_TRUE(Await([&] { return AllServed(*admin); })) << "round " << round;
    if (round > 0) slowest = std::max(slowest, absl::Now() - start);
    const uint64_t misses = random_() % 400;
    AwaitStats([&](const StoreStats& stats) { return stats.misses >= misses; });
    if (round == 0) {
      for (const auto& client : clients) {
        descriptors.push_back(OpenDescriptors(client->pid()));
        mappings.push_back(Mappings(client->pid()));
      }
    }
    process_->Kill();
    StartStore();
    if (HasFatalFailure()) return;
  }
  const auto admin = ExpertStorageAdmin::Connect(endpoint_).value();
  ASSERT_TRUE(Await([&] { return AllServed(*admin); }));
  for (int i = 0; i < kClients; ++i) {
    // A connection may be on its way out or in.
    EXPECT_TRUE(Await([&] {
      return OpenDescriptors(clients[i]->pid()) <= descriptors[i] + 1 &&
             Mappings(clients[i]->pid()) <= mappings[i];
    })) << OpenDescriptors(clients[i]->pid()) << " descriptors, " << descriptors[i] << " at first; "
        << Mappings(clients[i]->pid()) << " mappings, " << mappings[i] << " at first";
  }
  uint64_t right = 0;
  for (const auto& client : clients) {
    client->Signal(SIGTERM);
    const auto exit = client->Wait(kPatience);
    ASSERT_TRUE(exit.ok()) << exit.status();
    EXPECT_EQ(exit->signal, 0);
    EXPECT_EQ(exit->code, 0) << client->out() << client->err();
    const std::vector<std::string> words = absl::StrSplit(client->out(), ' ');
    uint64_t count = 0;
    ASSERT_TRUE(words.size() > 1 && absl::SimpleAtoi(words[1], &count)) << client->out();
    right += count;
    std::cout << client->out();
  }
  EXPECT_GT(right, static_cast<uint64_t>(rounds) * kClients);
  AwaitStats([](const StoreStats& s) { return s.clients == 0 && s.pinned_experts == 0; });
  std::cout << rounds << " kills; all clients served again within "
            << absl::ToInt64Milliseconds(slowest) << " ms of a restart, at most\n";
}

TEST_F(KillCampaignTest, ClientsKilledOverAndOverLeaveNothingBehind) {
  const int rounds = FromEnvironment("ODMOE_FAULT_ROUNDS", 8);
  // One by one and in crowds, at three points of their lives: at once, attached, with pins.
  const char* const kLines[] = {nullptr, "attached", "pinned"};
  size_t descriptors = 0;
  size_t mappings = 0;
  int killed = 0;
  absl::Duration slowest;
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::unique_ptr<Subprocess>> crowd;
    const int count = 1 + static_cast<int>(random_() % 3);
    for (int i = 0; i < count; ++i) {
      std::vector<std::string> arguments = {absl::StrCat(random_() % 2)};
      for (uint32_t e = 0; e < 1 + random_() % 4; ++e) {
        arguments.push_back(absl::StrCat(random_() % kExperts));
      }
      crowd.push_back(StartClient("odmoe_pinning_client", arguments));
      ASSERT_NE(crowd.back(), nullptr);
    }
    for (const auto& client : crowd) {
      // The first round is the baseline, so all the way.
      const char* line = round == 0 ? "pinned" : kLines[random_() % 3];
      if (line == nullptr) continue;
      const auto seen = client->WaitForLine(line, kPatience);
      ASSERT_TRUE(seen.ok()) << seen.status();
    }
    const absl::Time start = absl::Now();
    for (const auto& client : crowd) client->Kill();
    killed += count;
    AwaitStats([](const StoreStats& s) { return s.pinned_experts == 0 && s.clients == 0; });
    slowest = std::max(slowest, absl::Now() - start);
    if (round == 0) {
      descriptors = StoreDescriptors();
      mappings = Mappings(process_->pid());
    }
  }
  EXPECT_TRUE(Await([&] {
    return StoreDescriptors() <= descriptors + 1 && Mappings(process_->pid()) <= mappings;
  })) << StoreDescriptors() << " descriptors, " << descriptors << " at first; "
      << Mappings(process_->pid()) << " mappings, " << mappings << " at first";
  std::cout << killed << " clients killed; their pins gone within "
            << absl::ToInt64Milliseconds(slowest) << " ms at most\n";
  const auto store = Connect();
  ASSERT_NE(store, nullptr);
  AwaitService(*store);
}

}  // namespace
}  // namespace odmoe
