// What a file that is not what it should be seems to be instead.
#pragma once

#include <string>

#include "services/core/io/file.h"

namespace odmoe {

// "; it looks like a Git LFS pointer: ...", to be appended to a message, or "" where nothing is
// recognized. Reads a few hundred bytes at most.
std::string LooksLike(const RandomAccessFile& file);

}  // namespace odmoe
