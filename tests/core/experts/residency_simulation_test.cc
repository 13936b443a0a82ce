// The pin and evict protocol, its own code, under millions of seeded interleavings of its atomic
// accesses.
#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/experts/residency_protocol.h"
#include "tests/core/experts/broken_protocol.h"
#include "tests/core/experts/shared_bytes.h"

namespace odmoe {
namespace {

constexpr int64_t kTorn = -1;  // a slot that is being filled
constexpr int64_t kGone = -2;  // a slot whose memory has been given back

struct Shape {
  int experts = 5;
  int slots = 2;
  int clients = 3;
};

// What a follower of a client is told about a slot's memory.
struct Order {
  int slot = 0;
  bool map = false;
  bool done = false;
};

// One epoch of a store, as all actors share it: the real table and pages, and the arena as one
// number a slot, the expert whose bytes it holds.
struct World {
  World(const Shape& shape, int64_t epoch)
      : shape(shape),
        epoch(epoch),
        table_memory(ResidencyTable::BytesFor(shape.experts)),
        table(ResidencyTableWriter::Format(
            table_memory.span(), {epoch, static_cast<uint64_t>(shape.experts),
                                  static_cast<uint64_t>(shape.slots), 4096})),
        content(shape.slots, kTorn),
        mapped(shape.clients, std::vector<bool>(shape.slots, true)),
        orders(shape.clients) {
    for (int c = 0; c < shape.clients; ++c) {
      page_memory.push_back(std::make_unique<SharedBytes>(PinPage::BytesFor(shape.slots)));
      pages.push_back(PinPage::Format(page_memory.back()->span(), epoch, shape.slots));
    }
  }

  Shape shape;
  int64_t epoch;
  SharedBytes table_memory;
  ResidencyTableWriter table;
  std::vector<std::unique_ptr<SharedBytes>> page_memory;
  std::vector<PinPage> pages;
  std::vector<int64_t> content;            // by slot
  std::vector<std::vector<bool>> mapped;   // by client and slot
  std::vector<std::optional<Order>> orders;  // by client
};

struct Tally {
  uint64_t violations = 0;  // reads of a pinned slot that gave another expert's bytes, or a fault
  uint64_t hits = 0;
  uint64_t evictions = 0;
  uint64_t kept = 0;     // evictions that met a pin
  uint64_t retired = 0;  // slots whose memory was given back
  uint64_t epochs = 0;
  uint64_t steps = 0;
};

// Pins a random expert, reads it a few times, unpins, and begins anew; its follower maps and unmaps
// meanwhile. A step is one access.
template <typename P>
class Client {
 public:
  Client(std::shared_ptr<World> world, int number, Tally& tally) : number_(number), tally_(tally) {
    Attach(std::move(world));
  }

  void Step(const std::shared_ptr<World>& newest, std::mt19937_64& random) {
    if (reads_left_ > 0) {
      if (!world_->mapped[number_][*slot_] || world_->content[*slot_] != expert_) {
        ++tally_.violations;
      }
      --reads_left_;
    } else if (slot_.has_value()) {
      page_->Unpin(*slot_);
      slot_.reset();
    } else if (attempt_.has_value()) {
      StepAttempt(random);
    } else if (world_->table.closed()) {
      // Another epoch: what was pinned stayed as it was until now.
      Attach(newest);
    } else {
      expert_ = static_cast<int64_t>(random() % world_->shape.experts);
      attempt_.emplace(world_->table, *page_, expert_);
    }
  }

  void StepFollower() {
    std::optional<Order>& order = world_->orders[number_];
    if (!order.has_value() || order->done) return;
    const int slot = order->slot;
    if (order->map || !world_->mapped[number_][slot]) {
      // MappedArena::Unmap: `mapped` first, pins after that.
      if (!order->map && page_->Pinned(slot) && slot_ == static_cast<uint32_t>(slot)) {
        ++tally_.violations;
      }
      world_->mapped[number_][slot] = order->map;
      order->done = true;
    } else {
      world_->mapped[number_][slot] = false;
    }
  }

 private:
  void Attach(std::shared_ptr<World> world) {
    // A page of another epoch is refused.
    const auto memory = world->page_memory[number_]->span();
    if (PinPage::Attach(memory, world->epoch + 1, world->shape.slots).ok()) ++tally_.violations;
    page_ = PinPage::Attach(memory, world->epoch, world->shape.slots).value();
    world_ = std::move(world);
  }

  void StepAttempt(std::mt19937_64& random) {
    if (!attempt_->Step()) return;
    slot_ = attempt_->slot();
    attempt_.reset();
    if (!slot_.has_value()) return;
    ++tally_.hits;
    reads_left_ = 1 + static_cast<int>(random() % 6);
  }

  const int number_;
  Tally& tally_;
  std::shared_ptr<World> world_;
  std::optional<PinPage> page_;
  int64_t expert_ = 0;
  std::optional<typename P::Pin> attempt_;
  std::optional<uint32_t> slot_;
  int reads_left_ = 0;
};

// Evicts a random resident expert and fills its slot with one that is absent, over several steps;
// now and then retires a slot, gives its memory back, and takes it again.
template <typename P>
class Store {
 public:
  Store(World& world, Tally& tally) : world_(world), tally_(tally) {
    for (int slot = 0; slot < world.shape.slots; ++slot) free_.push_back(slot);
  }

  void Step(std::mt19937_64& random) {
    if (eviction_.has_value()) {
      StepEviction();
    } else if (filling_.has_value()) {
      StepFill();
    } else if (retiring_.has_value()) {
      StepRetire();
    } else if (random() % 16 == 0) {
      retiring_ = static_cast<uint32_t>(random() % world_.shape.slots);
      stage_ = Stage::kUnpublish;
    } else if (!free_.empty()) {
      BeginFill(random);
    } else {
      victim_ = resident_[random() % resident_.size()];
      eviction_.emplace(world_.table, world_.pages, victim_);
    }
  }

 private:
  enum class Stage { kUnpublish, kDrain, kUnmap, kMap };

  void StepEviction() {
    if (!eviction_->Step()) return;
    if (const auto slot = eviction_->slot()) {
      free_.push_back(*slot);
      std::erase(resident_, victim_);
      ++tally_.evictions;
    } else {
      ++tally_.kept;
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

  // As WorkingSet::RetireSlots and CachingExpertStore::RetireSegments do.
  void StepRetire() {
    const uint32_t slot = *retiring_;
    switch (stage_) {
      case Stage::kUnpublish:
        std::erase(free_, slot);
        std::erase_if(resident_, [&](int64_t expert) {
          const auto residency = world_.table.Find(expert);
          if (!residency || residency->slot != slot) return false;
          world_.table.Unpublish(expert);
          return true;
        });
        page_ = 0;
        stage_ = Stage::kDrain;
        return;
      case Stage::kDrain:
        // Once seen without a pin, a page stays so.
        if (page_ < world_.pages.size() && P::kDrains) {
          page_ += world_.pages[page_].Pinned(slot) ? 0 : 1;
          return;
        }
        Tell(slot, /*map=*/false);
        stage_ = Stage::kUnmap;
        return;
      case Stage::kUnmap:
        if (P::kAsks && !Answered()) return;
        world_.content[slot] = kGone;
        ++tally_.retired;
        Tell(slot, /*map=*/true);
        stage_ = Stage::kMap;
        return;
      case Stage::kMap:
        if (P::kAsks && !Answered()) return;
        free_.push_back(slot);
        retiring_.reset();
    }
  }

  void Tell(uint32_t slot, bool map) {
    for (auto& order : world_.orders) order = Order{static_cast<int>(slot), map, false};
  }
  bool Answered() const {
    return std::all_of(world_.orders.begin(), world_.orders.end(),
                       [](const std::optional<Order>& order) { return order->done; });
  }

  World& world_;
  Tally& tally_;
  std::vector<uint32_t> free_;
  std::vector<int64_t> resident_;
  std::optional<typename P::Eviction> eviction_;
  int64_t victim_ = 0;
  std::optional<uint32_t> filling_;
  int64_t incoming_ = 0;
  int fill_steps_ = 0;
  uint32_t generation_ = 0;
  std::optional<uint32_t> retiring_;
  Stage stage_ = Stage::kUnpublish;
  size_t page_ = 0;
};

// Runs whoever the seed says, one access at a time. Bursts make rare orders likelier: one actor
// stands still while another goes all the way. Four times in a run the store is replaced by one of
// another epoch, at any step.
template <typename P>
Tally Simulate(uint64_t seed, uint64_t steps, const Shape& shape) {
  Tally tally;
  std::mt19937_64 random(seed);
  auto world = std::make_shared<World>(shape, 1);
  std::vector<std::shared_ptr<World>> former;  // their memory stays while anyone has it mapped
  auto store = std::make_unique<Store<P>>(*world, tally);
  std::vector<Client<P>> clients;
  for (int c = 0; c < shape.clients; ++c) clients.emplace_back(world, c, tally);
  while (tally.steps < steps) {
    if (tally.steps / (steps / 5 + 1) > tally.epochs) {
      world->table.Close();
      former.push_back(world);
      world = std::make_shared<World>(shape, world->epoch + 1);
      store = std::make_unique<Store<P>>(*world, tally);
      ++tally.epochs;
    }
    const uint64_t actor = random() % (2 * shape.clients + 2);
    const int burst = random() % 4 == 0 ? static_cast<int>(random() % 24) + 1 : 1;
    for (int i = 0; i < burst; ++i, ++tally.steps) {
      if (actor < 2) {
        store->Step(random);
      } else if (actor % 2 == 0) {
        clients[actor / 2 - 1].Step(world, random);
      } else {
        clients[actor / 2 - 1].StepFollower();
      }
    }
  }
  return tally;
}

template <typename P>
uint64_t ViolationsOf() {
  uint64_t violations = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) violations += Simulate<P>(seed, 50'000, {}).violations;
  return violations;
}

TEST(ResidencySimulationTest, APinnedSlotIsNeverFilledAnewNorTakenAway) {
  Tally sum;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Shape shape;
    shape.experts = 3 + static_cast<int>(seed % 5);
    shape.slots = 1 + static_cast<int>(seed % 2);
    shape.clients = 1 + static_cast<int>(seed % 4);
    const Tally tally = Simulate<WholeProtocol>(seed, 210'000, shape);
    ASSERT_EQ(tally.violations, 0u) << "seed " << seed;
    sum.hits += tally.hits;
    sum.evictions += tally.evictions;
    sum.kept += tally.kept;
    sum.retired += tally.retired;
    sum.epochs += tally.epochs;
    sum.steps += tally.steps;
  }
  EXPECT_GE(sum.steps, 10'000'000u);
  // The runs went where it matters.
  EXPECT_GT(sum.hits, 100'000u);
  EXPECT_GT(sum.evictions, 10'000u);
  EXPECT_GT(sum.kept, 10'000u);
  EXPECT_GT(sum.retired, 10'000u);
  EXPECT_EQ(sum.epochs, 200u);
}

TEST(ResidencySimulationTest, TheSimulationCatchesEachBrokenPartOfTheProtocol) {
  EXPECT_EQ(ViolationsOf<WholeProtocol>(), 0u);
  EXPECT_GT(ViolationsOf<WithoutSecondRead>(), 0u);
  EXPECT_GT(ViolationsOf<WithoutSecondLook>(), 0u);
  EXPECT_GT(ViolationsOf<WithoutDraining>(), 0u);
  EXPECT_GT(ViolationsOf<WithoutAsking>(), 0u);
}

TEST(ResidencySimulationTest, TheSameSeedIsTheSameRun) {
  const Tally a = Simulate<WholeProtocol>(7, 20'000, Shape());
  const Tally b = Simulate<WholeProtocol>(7, 20'000, Shape());
  EXPECT_EQ(a.hits, b.hits);
  EXPECT_EQ(a.evictions, b.evictions);
  EXPECT_EQ(a.kept, b.kept);
  EXPECT_EQ(a.retired, b.retired);
}

}  // namespace
}  // namespace odmoe
