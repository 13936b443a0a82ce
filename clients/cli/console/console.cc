#include "clients/cli/console/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>

#include "absl/strings/str_format.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

constexpr int kDefaultColumns = 80;

int TerminalColumns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefaultColumns;
  return size.ws_col;
}

}  // namespace

Console Console::Standard() {
  return Console({.in = &std::cin,
                  .out = &std::cout,
                  .err = &std::cerr,
                  .out_is_terminal = isatty(STDOUT_FILENO) == 1,
                  .err_is_terminal = isatty(STDERR_FILENO) == 1,
                  .columns = TerminalColumns});
}

void Console::Out(absl::string_view text) {
  streams_.out->write(text.data(), static_cast<std::streamsize>(text.size()));
  streams_.out->flush();
}

void Console::Err(absl::string_view text) {
  streams_.err->write(text.data(), static_cast<std::streamsize>(text.size()));
  streams_.err->flush();
}

// One write a line: other processes may write to the same terminal or file.
void Console::OutLine(absl::string_view text) { Out(std::string(text) + '\n'); }
void Console::ErrLine(absl::string_view text) { Err(std::string(text) + '\n'); }

int Console::columns() const { return streams_.columns ? streams_.columns() : kDefaultColumns; }

absl::Status Console::CheckOut() const {
  if (streams_.out->good()) return absl::OkStatus();
  return absl::DataLossError("cannot write the result to standard output; is the disk full?");
}

absl::StatusOr<std::string> Console::ReadIn(uint64_t limit_bytes) {
  std::string text;
  char block[64 * 1024];
  while (streams_.in->read(block, sizeof(block)) || streams_.in->gcount() > 0) {
    text.append(block, static_cast<size_t>(streams_.in->gcount()));
    if (text.size() > limit_bytes) {
      return absl::InvalidArgumentError(absl::StrFormat("standard input has more than %s of text",
                                                        FormatBytes(limit_bytes)));
    }
  }
  return text;
}

}  // namespace odmoe
