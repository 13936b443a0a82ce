#include "services/core/io/file_hash.h"

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/core/io/posix_error.h"

namespace odmoe {
namespace {

constexpr size_t kBlockBytes = 1 << 20;

}  // namespace

void FileHash::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

FileHash::FileHash() : state_(XXH3_createState()) { XXH3_64bits_reset(state_.get()); }

FileHash::~FileHash() = default;

void FileHash::Add(absl::string_view bytes) {
  XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
}

uint64_t FileHash::value() const { return XXH3_64bits_digest(state_.get()); }

uint64_t FileHash::Of(absl::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

absl::Status FileHash::AddFile(int fd, uint64_t bytes, absl::string_view name) {
  std::vector<char> block(std::min<uint64_t>(bytes, kBlockBytes));
  for (uint64_t offset = 0; offset < bytes;) {
    const size_t want = std::min<uint64_t>(bytes - offset, block.size());
    const ssize_t got = ::pread(fd, block.data(), want, off_t(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return PosixError(errno, "read", std::string(name));
    if (got == 0) {
      return absl::OutOfRangeError(absl::StrCat(name, ": ends at offset ", offset,
                                                ", expected at least ", bytes, " bytes"));
    }
    Add(absl::string_view(block.data(), size_t(got)));
    offset += uint64_t(got);
  }
  return absl::OkStatus();
}

}  // namespace odmoe
