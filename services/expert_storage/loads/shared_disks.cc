#include "services/expert_storage/loads/shared_disks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "absl/memory/memory.h"

namespace odmoe {

std::unique_ptr<SharedDisks::Place> SharedDisks::Join(std::vector<uint64_t> disks,
                                                      std::vector<double> shares) {
  auto place = absl::WrapUnique(
      new Place(shared_from_this(), std::move(disks), std::move(shares)));
  absl::MutexLock lock(&mutex_);
  places_.push_back(place.get());
  return place;
}

SharedDisks::Place::~Place() {
  absl::MutexLock lock(&all_->mutex_);
  std::erase(all_->places_, this);
}

bool SharedDisks::Place::Meets(const Place& other) const {
  return std::find_first_of(disks_.begin(), disks_.end(), other.disks_.begin(),
                            other.disks_.end()) != disks_.end();
}

SharedDisks::Division SharedDisks::Place::Divide() const {
  Division division;
  division.shares = shares_;
  const uint64_t mine = demanding_.load(std::memory_order_relaxed);
  uint64_t all = mine;
  std::array<int, 64> stores{};  // that a tenant demands of, by tenant
  const auto count = [&stores](uint64_t tenants) {
    for (; tenants != 0; tenants &= tenants - 1) ++stores[std::countr_zero(tenants)];
  };
  count(mine);
  {
    absl::ReaderMutexLock lock(&all_->mutex_);
    for (const Place* other : all_->places_) {
      if (other == this || !Meets(*other)) continue;
      const uint64_t theirs = other->demanding_.load(std::memory_order_relaxed);
      count(theirs);
      all |= theirs;
    }
  }
  double of_mine = 0.0;
  double of_all = 0.0;
  for (size_t tenant = 0; tenant < shares_.size(); ++tenant) {
    const uint64_t bit = uint64_t{1} << tenant;
    if (stores[tenant] > 1) division.shares[tenant] /= stores[tenant];
    if ((all & bit) != 0) of_all += shares_[tenant];
    if ((mine & bit) != 0) of_mine += division.shares[tenant];
  }
  if (of_mine > 0.0) division.part = of_mine / of_all;
  return division;
}

bool SharedDisks::Place::OthersDemand() const {
  absl::ReaderMutexLock lock(&all_->mutex_);
  return std::any_of(all_->places_.begin(), all_->places_.end(), [this](const Place* other) {
    return other != this && other->demanding_.load(std::memory_order_relaxed) != 0 &&
           Meets(*other);
  });
}

}  // namespace odmoe
