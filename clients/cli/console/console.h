// The command's three streams, and what is known about the terminal behind them.
#pragma once

#include <cstdint>
#include <functional>
#include <istream>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

// Where a command writes and reads. Results go to `out`, everything else to `err`, so that a pipe
// gets results alone. Used by one thread at a time.
class Console {
 public:
  struct Streams {
    std::istream* in = nullptr;
    std::ostream* out = nullptr;
    std::ostream* err = nullptr;
    bool out_is_terminal = false;
    bool err_is_terminal = false;
    std::function<int()> columns;  // the terminal's width now; null: 80
  };

  explicit Console(Streams streams) : streams_(std::move(streams)) {}
  // The process's own streams.
  static Console Standard();

  // Writes as it is, and flushes: what is streamed must be seen when it comes.
  void Out(absl::string_view text);
  void Err(absl::string_view text);
  // One line.
  void OutLine(absl::string_view text);
  void ErrLine(absl::string_view text);

  bool out_is_terminal() const { return streams_.out_is_terminal; }
  bool err_is_terminal() const { return streams_.err_is_terminal; }
  int columns() const;

  // DATA_LOSS: something written to `out` did not arrive, as on a full disk.
  absl::Status CheckOut() const;

  // All of the input, byte for byte. INVALID_ARGUMENT: more than `limit_bytes`.
  absl::StatusOr<std::string> ReadIn(uint64_t limit_bytes);

 private:
  Streams streams_;
};

}  // namespace odmoe
