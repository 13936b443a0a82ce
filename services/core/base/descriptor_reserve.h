// Descriptors kept back for work under way, so that a crowd of connections cannot take them all.
#pragma once

namespace odmoe {

// True where `fd`, just made, leaves too few of the descriptors this process may have: a quarter,
// 64 at most. Whoever made it for a newcomer closes it again, and the newcomer tries later; those
// who are in already can still have files opened for them. The kernel gives out the lowest number
// that is free, so a number tells how many are in use.
bool InDescriptorReserve(int fd);

}  // namespace odmoe
