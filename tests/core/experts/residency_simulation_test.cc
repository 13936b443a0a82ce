// The pin and evict protocol, its own code, under millions of seeded interleavings of its atomic
// accesses.
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/experts/residency_protocol.h"
#include "tests/core/experts/shared_bytes.h"

namespace odmoe {
namespace {

constexpr int64_t kTorn = -1;  // a slot that is being filled

struct Shape {
  int experts = 5;
  int slots = 2;
  int clients = 3;
};

// What all actors share: the real table and pages, and the arena as one number a slot, the expert
// whose bytes it holds.
struct World {
  explicit World(const Shape& shape)
      : shape(shape),
        table_memory(ResidencyTable::BytesFor(shape.experts)),
        table(ResidencyTableWriter::Format(
            table_memory.span(), {1, static_cast<uint64_t>(shape.experts),
                                  static_cast<uint64_t>(shape.slots), 4096})),
        content(shape.slots, kTorn) {
    for (int c = 0; c < shape.clients; ++c) {
      page_memory.push_back(std::make_unique<SharedBytes>(PinPage::BytesFor(shape.slots)));
      pages.push_back(PinPage::Format(page_memory.back()->span(), 1, shape.slots));
    }
  }

  Shape shape;
  SharedBytes table_memory;
  ResidencyTableWriter table;
  std::vector<std::unique_ptr<SharedBytes>> page_memory;
  std::vector<PinPage> pages;
  std::vector<int64_t> content;  // by slot
  uint64_t violations = 0;       // reads of a pinned slot that gave another expert's bytes
  uint64_t hits = 0;
  uint64_t evictions = 0;
  uint64_t kept = 0;  // evictions that met a pin
};

// Pins a random expert, reads it a few times, unpins, and begins anew. A step is one access.
class Client {
 public:
  Client(World& world, int number) : world_(world), page_(world.pages[number]) {}

  void Step(std::mt19937_64& random) {
    if (reads_left_ > 0) {
      if (world_.content[*slot_] != expert_) ++world_.violations;
      --reads_left_;
    } else if (slot_.has_value()) {
      page_.Unpin(*slot_);
      slot_.reset();
    } else if (!attempt_.has_value()) {
      expert_ = static_cast<int64_t>(random() % world_.shape.experts);
      attempt_.emplace(world_.table, page_, expert_);
    } else if (attempt_->Step()) {
      slot_ = attempt_->slot();
      attempt_.reset();
      if (slot_.has_value()) {
        ++world_.hits;
        reads_left_ = 1 + static_cast<int>(random() % 6);
      }
    }
  }

 private:
  World& world_;
  PinPage page_;
  int64_t expert_ = 0;
  std::optional<PinAttempt> attempt_;
  std::optional<uint32_t> slot_;
  int reads_left_ = 0;
};

// What a store must not do: look for pins first, then unpublish, and never look again.
class CarelessEviction {
 public:
  CarelessEviction(ResidencyTableWriter table, absl::Span<const PinPage> pages, int64_t expert)
      : table_(table), pages_(pages), expert_(expert) {}
  bool Step() {
    if (page_ < pages_.size()) {
      const auto residency = table_.Find(expert_);
      if (!residency || pages_[page_].Pinned(residency->slot)) return true;
      ++page_;
      return false;
    }
    slot_ = table_.Find(expert_)->slot;
    table_.Unpublish(expert_);
    return true;
  }
  std::optional<uint32_t> slot() const { return slot_; }

 private:
  ResidencyTableWriter table_;
  absl::Span<const PinPage> pages_;
  int64_t expert_;
  size_t page_ = 0;
  std::optional<uint32_t> slot_;
};

// Evicts a random resident expert and fills its slot with one that is absent, over several steps.
template <typename Eviction>
class Store {
 public:
  explicit Store(World& world) : world_(world) {
    for (int slot = 0; slot < world.shape.slots; ++slot) free_.push_back(slot);
  }

  void Step(std::mt19937_64& random) {
    if (eviction_.has_value()) {
      StepEviction();
    } else if (filling_.has_value()) {
      StepFill();
    } else if (!free_.empty()) {
      BeginFill(random);
    } else {
      victim_ = resident_[random() % resident_.size()];
      eviction_.emplace(world_.table, world_.pages, victim_);
    }
  }

 private:
  void StepEviction() {
    if (!eviction_->Step()) return;
    if (const auto slot = eviction_->slot()) {
      free_.push_back(*slot);
      std::erase(resident_, victim_);
      ++world_.evictions;
    } else {
      ++world_.kept;
    }
    eviction_.reset();
  }

  void BeginFill(std::mt19937_64& random) {
    do {
      incoming_ = static_cast<int64_t>(random() % world_.shape.experts);
    } while (std::find(resident_.begin(), resident_.end(), incoming_) != resident_.end());
    filling_ = free_.back();
    free_.pop_back();
    world_.content[*filling_] = kTorn;
    fill_steps_ = 1 + static_cast<int>(random() % 4);
  }

  void StepFill() {
    if (--fill_steps_ > 0) return;
    if (fill_steps_ == 0) {
      world_.content[*filling_] = incoming_;
      return;
    }
    world_.table.Publish(incoming_, {*filling_, ++generation_});
    resident_.push_back(incoming_);
    filling_.reset();
  }

  World& world_;
  std::vector<uint32_t> free_;
  std::vector<int64_t> resident_;
  std::optional<Eviction> eviction_;
  int64_t victim_ = 0;
  std::optional<uint32_t> filling_;
  int64_t incoming_ = 0;
  int fill_steps_ = 0;
  uint32_t generation_ = 0;
};

// Runs whoever the seed says, one access at a time. Bursts make rare orders likelier: one actor
// stands still while another goes all the way.
template <typename Eviction>
World Simulate(uint64_t seed, int steps, const Shape& shape) {
  World world(shape);
  std::mt19937_64 random(seed);
  Store<Eviction> store(world);
  std::vector<Client> clients;
  for (int c = 0; c < shape.clients; ++c) clients.emplace_back(world, c);
  for (int step = 0; step < steps;) {
    const uint64_t actor = random() % (shape.clients + 1);
    const int burst = random() % 4 == 0 ? static_cast<int>(random() % 24) + 1 : 1;
    for (int i = 0; i < burst; ++i, ++step) {
      if (actor == 0) {
        store.Step(random);
      } else {
        clients[actor - 1].Step(random);
      }
    }
  }
  return world;
}

TEST(ResidencySimulationTest, APinnedSlotIsNeverFilledAnew) {
  uint64_t hits = 0;
  uint64_t evictions = 0;
  uint64_t kept = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Shape shape;
    shape.experts = 3 + static_cast<int>(seed % 5);
    shape.slots = 1 + static_cast<int>(seed % 2);
    shape.clients = 1 + static_cast<int>(seed % 4);
    const World world = Simulate<EvictionAttempt>(seed, 50'000, shape);
    ASSERT_EQ(world.violations, 0u) << "seed " << seed;
    hits += world.hits;
    evictions += world.evictions;
    kept += world.kept;
  }
  // The runs went where it matters.
  EXPECT_GT(hits, 100'000u);
  EXPECT_GT(evictions, 10'000u);
  EXPECT_GT(kept, 10'000u);
}

TEST(ResidencySimulationTest, TheSimulationCatchesAStoreThatDoesNotLookAgain) {
  uint64_t violations = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    violations += Simulate<CarelessEviction>(seed, 50'000, Shape()).violations;
  }
  EXPECT_GT(violations, 0u);
}

TEST(ResidencySimulationTest, TheSameSeedIsTheSameRun) {
  const World a = Simulate<EvictionAttempt>(7, 20'000, Shape());
  const World b = Simulate<EvictionAttempt>(7, 20'000, Shape());
  EXPECT_EQ(a.hits, b.hits);
  EXPECT_EQ(a.evictions, b.evictions);
  EXPECT_EQ(a.kept, b.kept);
}

}  // namespace
}  // namespace odmoe
