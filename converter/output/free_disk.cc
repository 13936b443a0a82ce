#include "converter/output/free_disk.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {

absl::Status CheckFreeDisk(FileSystem& fs, const std::string& destination, uint64_t bytes,
                           uint64_t written_bytes) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t free_bytes, fs.FreeBytes(destination));
  const uint64_t needed = bytes - std::min(bytes, written_bytes);
  if (needed <= free_bytes) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "too little disk space for ", destination, ": ", FormatBytes(needed), " (", needed,
      " bytes) needed, ", FormatBytes(free_bytes), " (", free_bytes, " bytes) free"));
}

}  // namespace odmoe
