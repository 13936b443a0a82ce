#include "services/expert_storage/sources/block_reader.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace odmoe {

absl::Status FileEndsEarly(const BlockRead& read, uint64_t got) {
  return absl::DataLossError(absl::StrCat(read.path, ": ends at offset ", read.offset + got,
                                          ", expected ", read.needed, " bytes at offset ",
                                          read.offset));
}

absl::Status ReadFailed(const BlockRead& read, uint64_t offset, int error) {
  return absl::DataLossError(
      absl::StrCat(read.path, ": read at offset ", offset, " failed: ", std::strerror(error)));
}

}  // namespace odmoe
