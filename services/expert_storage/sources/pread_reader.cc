#include <unistd.h>

#include <cerrno>
#include <utility>

#include "services/core/base/thread_pool.h"
#include "services/expert_storage/sources/block_reader.h"

namespace odmoe {
namespace {

absl::Status ReadBlocking(const BlockRead& read) {
  uint64_t got = 0;
  while (got < read.into.size()) {
    const ssize_t n = pread(read.fd, read.into.data() + got, read.into.size() - got,
                            static_cast<off_t>(read.offset + got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ReadFailed(read, read.offset + got, errno);
    if (n == 0) break;
    got += static_cast<uint64_t>(n);
    // Under O_DIRECT the rest would start where no direct read may; it is past the end anyhow.
    if (got >= read.needed) break;
  }
  return got >= read.needed ? absl::OkStatus() : FileEndsEarly(read, got);
}

class PreadReader final : public BlockReader {
 public:
  explicit PreadReader(size_t threads) : pool_(threads) {}

  void Read(BlockRead read, Done done) override {
    pool_.Schedule([read = std::move(read), done = std::move(done)] { done(ReadBlocking(read)); });
  }

 private:
  ThreadPool pool_;
};

}  // namespace

std::unique_ptr<BlockReader> MakePreadReader(size_t threads) {
  return std::make_unique<PreadReader>(threads);
}

}  // namespace odmoe
