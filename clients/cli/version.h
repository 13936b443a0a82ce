// The program's version; CMake's project version, handed in by the build.
#pragma once

namespace odmoe {

inline constexpr char kVersion[] = ODMOE_VERSION;

}  // namespace odmoe
