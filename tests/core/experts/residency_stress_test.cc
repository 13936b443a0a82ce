// The pin and evict protocol with real threads, for the thread sanitizer.
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/experts/residency_protocol.h"
#include "tests/core/experts/shared_bytes.h"

namespace odmoe {
namespace {

constexpr int kStressExperts = 6;
constexpr int kStressSlots = 2;
constexpr int kClients = 3;
constexpr int kWords = 8;  // of a slot's content, all equal to the expert it holds
constexpr int kRounds = 20'000;

// Plain memory: without the protocol, a reader and the store would race on it.
struct Slot {
  uint64_t words[kWords] = {};
};

class ResidencyStress {
 public:
  ResidencyStress() {
    for (int c = 0; c < kClients; ++c) {
      page_memory_.push_back(std::make_unique<SharedBytes>(PinPage::BytesFor(kStressSlots)));
      pages_.push_back(PinPage::Format(page_memory_.back()->span(), 1, kStressSlots));
    }
  }

  void RunClient(int number) {
    PinPage page = pages_[number];
    std::mt19937 random(number);
    uint64_t hits = 0;
    // Until the store is done, so that it never evicts alone.
    while (!store_done_.load()) {
      const int64_t expert = static_cast<int64_t>(random() % kStressExperts);
      const auto slot = TryPin(table_, page, expert);
      if (!slot) continue;
      for (uint64_t word : slots_[*slot].words) {
        if (word != static_cast<uint64_t>(expert)) wrong_.fetch_add(1);
      }
      page.RecordAccess(expert);
      page.Unpin(*slot);
      ++hits;
    }
    hits_.fetch_add(hits);
  }

  void RunStore() {
    std::mt19937 random(99);
    std::vector<int64_t> holds(kStressSlots, -1);
    std::vector<uint64_t> positions(kClients, 0);
    std::vector<int64_t> accesses;
    for (int round = 0; round < kRounds; ++round) {
      const uint32_t slot = random() % kStressSlots;
      if (holds[slot] >= 0 && TryEvict(table_, pages_, holds[slot]) != slot) continue;
      int64_t expert = 0;
      do {
        expert = static_cast<int64_t>(random() % kStressExperts);
      } while (std::find(holds.begin(), holds.end(), expert) != holds.end());
      for (uint64_t& word : slots_[slot].words) word = static_cast<uint64_t>(expert);
      holds[slot] = expert;
      table_.Publish(expert, {slot, static_cast<uint32_t>(round)});
      for (int c = 0; c < kClients; ++c) {
        accesses.clear();
        pages_[c].TakeAccesses(kStressExperts, pages_[c].accesses(), kAccessRingEntries,
                               positions[c], accesses);
      }
      ++fills_;
    }
    store_done_.store(true);
  }

  uint64_t wrong() const { return wrong_.load(); }
  uint64_t fills() const { return fills_; }

 private:
  SharedBytes table_memory_{ResidencyTable::BytesFor(kStressExperts)};
  ResidencyTableWriter table_ =
      ResidencyTableWriter::Format(table_memory_.span(), {1, kStressExperts, kStressSlots, 4096});
  std::vector<std::unique_ptr<SharedBytes>> page_memory_;
  std::vector<PinPage> pages_;
  Slot slots_[kStressSlots];
  std::atomic<bool> store_done_{false};
  std::atomic<uint64_t> wrong_{0};
  std::atomic<uint64_t> hits_{0};
  uint64_t fills_ = 0;
};

TEST(ResidencyStressTest, ReadersNeverSeeAnotherExpertsBytes) {
  ResidencyStress stress;
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) clients.emplace_back([&stress, c] { stress.RunClient(c); });
  stress.RunStore();
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(stress.wrong(), 0u);
  EXPECT_GT(stress.fills(), 100u);
}

}  // namespace
}  // namespace odmoe
