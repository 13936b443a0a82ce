#include "services/expert_storage/policy/lru_policy.h"

namespace odmoe {

LruPolicy::LruPolicy(int64_t expert_count)
    : sentinel_(static_cast<int32_t>(expert_count)), links_(expert_count + 1) {
  links_[sentinel_] = {sentinel_, sentinel_};
}

void LruPolicy::Touched(int64_t expert) {
  Unlink(expert);
  LinkFirst(expert);
}

int64_t LruPolicy::Victim() const {
  const int32_t oldest = links_[sentinel_].newer;
  return oldest == sentinel_ ? -1 : oldest;
}

void LruPolicy::LinkFirst(int64_t expert) {
  const int32_t self = static_cast<int32_t>(expert);
  const int32_t newest = links_[sentinel_].older;
  links_[self] = {sentinel_, newest};
  links_[newest].newer = self;
  links_[sentinel_].older = self;
}

void LruPolicy::Unlink(int64_t expert) {
  const Link link = links_[expert];
  links_[link.newer].older = link.older;
  links_[link.older].newer = link.newer;
}

}  // namespace odmoe
