// The trained checkpoint that ships with the tests.
#pragma once

#include <string>

namespace odmoe {

inline const std::string kCheckpoint = ODMOE_TEST_DATA "/tiny-kimi";

}  // namespace odmoe
