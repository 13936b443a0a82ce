// XXH3 of bytes as they come.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

struct XXH3_state_s;

namespace odmoe {

// The 64-bit XXH3 of all bytes added so far. Not thread-safe.
class FileHash {
 public:
  FileHash();
  ~FileHash();
  void Add(absl::string_view bytes);
  uint64_t value() const;

  // Adds the first `bytes` of the open file `fd`. OUT_OF_RANGE: it is shorter. DATA_LOSS: the
  // device failed. `name` is for messages.
  absl::Status AddFile(int fd, uint64_t bytes, absl::string_view name);

  static uint64_t Of(absl::string_view bytes);

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

}  // namespace odmoe
