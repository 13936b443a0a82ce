// The pin and evict protocol, its own code, in every order of its atomic accesses.
#include <memory>
#include <optional>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/experts/broken_protocol.h"
#include "tests/core/experts/shared_bytes.h"

namespace odmoe {
namespace {

constexpr int64_t kBeingFilled = -1;

// Every interleaving, one after the other: two clients that each pin expert 0 once and read it, and
// a store that evicts it, fills its slot with expert 1, and so on back and forth.
template <typename P>
class Interleavings {
 public:
  // The store's rounds, and how often an actor that could go on is stopped by another; below 0: any
  // number of times.
  Interleavings(int rounds, int preemptions) {
    for (int c = 0; c < kActors - 1; ++c) {
      page_memory_.push_back(std::make_unique<SharedBytes>(PinPage::BytesFor(1)));
      pages_.push_back(PinPage::Format(page_memory_.back()->span(), 1, 1));
    }
    State start;
    start.rounds_left = rounds;
    table_.Publish(0, {0, 1});
    Save(start);
    Explore(start, -1, preemptions);
  }

  uint64_t schedules() const { return schedules_; }
  uint64_t violations() const { return violations_; }
  uint64_t hits() const { return hits_; }

 private:
  static constexpr int kActors = 3;  // the store and two clients
  struct ClientState {
    std::optional<typename P::Pin> attempt;
    std::optional<uint32_t> slot;
    enum { kBegin, kPin, kRead, kUnpin, kDone } next = kBegin;
  };
  // All of it, so that a branch of the search begins with a copy.
  struct State {
    ClientState clients[kActors - 1];
    std::optional<typename P::Eviction> eviction;
    int64_t holds = 0;  // the expert in the slot
    uint32_t generation = 1;
    int rounds_left = 0;
    bool torn = false;
    // What is in shared memory.
    uint64_t words[2] = {};
    bool pinned[kActors - 1] = {};
    int64_t content = 0;
  };

  void Save(State& state) const {
    for (int e = 0; e < 2; ++e) state.words[e] = table_.LoadWord(e);
    for (int c = 0; c < kActors - 1; ++c) state.pinned[c] = pages_[c].Pinned(0);
  }
  void Restore(const State& state) {
    for (int e = 0; e < 2; ++e) {
      const auto residency = ResidencyTable::Decode(state.words[e]);
      residency ? table_.Publish(e, *residency) : table_.Unpublish(e);
    }
    for (int c = 0; c < kActors - 1; ++c) {
      if (pages_[c].Pinned(0) == state.pinned[c]) continue;
      state.pinned[c] ? pages_[c].Pin(0) : pages_[c].Unpin(0);
    }
  }

  bool Done(const State& state, int actor) const {
    if (actor == 0) return state.rounds_left == 0;
    return state.clients[actor - 1].next == ClientState::kDone;
  }

  void Explore(const State& state, int last, int preemptions) {
    bool end = true;
    for (int actor = 0; actor < kActors; ++actor) {
      if (Done(state, actor)) continue;
      end = false;
      const bool preempts = last >= 0 && actor != last && !Done(state, last);
      if (preempts && preemptions == 0) continue;
      State next = state;
      Restore(state);
      actor == 0 ? StepStore(next) : StepClient(next, actor - 1);
      Save(next);
      Explore(next, actor, preempts ? preemptions - 1 : preemptions);
    }
    schedules_ += end ? 1 : 0;
  }

  void StepStore(State& state) {
    if (state.torn) {
      state.torn = false;
      state.holds = 1 - state.holds;
      state.content = state.holds;
      table_.Publish(state.holds, {0, ++state.generation});
      --state.rounds_left;
      return;
    }
    if (!state.eviction) state.eviction.emplace(table_, pages_, state.holds);
    if (!state.eviction->Step()) return;
    if (state.eviction->slot()) {
      state.content = kBeingFilled;
      state.torn = true;
    } else {
      --state.rounds_left;  // a pin was met
    }
    state.eviction.reset();
  }

  void StepClient(State& state, int number) {
    ClientState& client = state.clients[number];
    switch (client.next) {
      case ClientState::kBegin:
        client.attempt.emplace(table_, pages_[number], 0);
        client.next = ClientState::kPin;
        [[fallthrough]];
      case ClientState::kPin:
        if (!client.attempt->Step()) return;
        client.slot = client.attempt->slot();
        client.next = client.slot ? ClientState::kRead : ClientState::kDone;
        hits_ += client.slot ? 1 : 0;
        return;
      case ClientState::kRead:
        violations_ += state.content != 0 ? 1 : 0;
        client.next = ClientState::kUnpin;
        return;
      case ClientState::kUnpin:
        pages_[number].Unpin(0);
        client.next = ClientState::kDone;
        return;
      case ClientState::kDone:
        return;
    }
  }

  SharedBytes table_memory_{ResidencyTable::BytesFor(2)};
  ResidencyTableWriter table_ = ResidencyTableWriter::Format(table_memory_.span(), {1, 2, 1, 4096});
  std::vector<std::unique_ptr<SharedBytes>> page_memory_;
  std::vector<PinPage> pages_;
  uint64_t schedules_ = 0;
  uint64_t violations_ = 0;
  uint64_t hits_ = 0;
};

TEST(ResidencyInterleavingTest, NoOrderOfTwoClientsAndAnEvictionReadsAnotherExpert) {
  const Interleavings<WholeProtocol> every(/*rounds=*/1, /*preemptions=*/-1);
  EXPECT_EQ(every.violations(), 0u);
  EXPECT_GT(every.hits(), 0u);
  // The number itself is the proof that the search did not end early.
  EXPECT_GT(every.schedules(), 100'000u);
}

TEST(ResidencyInterleavingTest, NorDoesOneWhereTheExpertComesBackToItsSlot) {
  const Interleavings<WholeProtocol> bounded(/*rounds=*/3, /*preemptions=*/3);
  EXPECT_EQ(bounded.violations(), 0u);
  EXPECT_GT(bounded.hits(), 0u);
  EXPECT_GT(bounded.schedules(), 10'000u);
}

TEST(ResidencyInterleavingTest, TheSearchFindsWhatIsBroken) {
  EXPECT_GT(Interleavings<WithoutSecondRead>(2, 3).violations(), 0u);
  EXPECT_GT(Interleavings<WithoutSecondLook>(2, 3).violations(), 0u);
}

}  // namespace
}  // namespace odmoe
