// How much memory a piece of code holds at most.
#pragma once

#include <cstddef>

namespace odmoe {

// Counts what operator new gives out in the whole process. The program that includes it replaces
// the global operators. For one thread.
class AllocationMeter {
 public:
  AllocationMeter();
  // The most bytes held at once since the meter was made, beyond those held then.
  size_t peak_bytes() const;

 private:
  size_t start_;
};

}  // namespace odmoe
