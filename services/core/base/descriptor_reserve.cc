#include "services/core/base/descriptor_reserve.h"

#include <sys/resource.h>

#include <algorithm>

namespace odmoe {

bool InDescriptorReserve(int fd) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return false;
  const rlim_t reserve = std::min<rlim_t>(limit.rlim_cur / 4, 64);
  return static_cast<rlim_t>(fd) >= limit.rlim_cur - reserve;
}

}  // namespace odmoe
