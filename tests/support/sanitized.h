// Whether a test runs under the address or thread sanitizer: many times slower, and with memory of
// the sanitizer's own.
#pragma once

namespace odmoe {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace odmoe
