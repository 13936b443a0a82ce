// Runs a check on every instruction set that was compiled and that this machine has.
#pragma once

#include <cstdint>
#include <functional>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "services/core/kernels/simd.h"

namespace odmoe {

inline void ForEachTarget(const std::function<void(const SimdKernels&)>& check) {
  int count = 0;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(Simd().target);
    EXPECT_STREQ(Simd().target, hwy::TargetName(target));
    check(Simd());
    ++count;
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  EXPECT_GE(count, 1);
}

}  // namespace odmoe
