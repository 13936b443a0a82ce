// The whole terminal, taken over for a while and given back as it was.
#pragma once

#include <termios.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace odmoe {

struct TerminalSize {
  int rows = 24;
  int columns = 80;
};

// The alternate screen of the terminal behind standard input and output, keys unechoed and one at a
// time. Ctrl-C stays a signal; Ctrl-Z and Ctrl-\ do nothing, since they would leave it taken.
// Opened before any thread is started, so that none takes its signals; used by one thread, but for
// Wake.
class TerminalScreen {
 public:
  // FAILED_PRECONDITION: one of the two is no terminal.
  static absl::StatusOr<std::unique_ptr<TerminalScreen>> Open();
  ~TerminalScreen();
  TerminalScreen(const TerminalScreen&) = delete;
  TerminalScreen& operator=(const TerminalScreen&) = delete;

  // Whether standard input and output are a terminal that can be drawn on: not where TERM is unset
  // or "dumb".
  static bool Possible();

  // Leaves the terminal as it was; nothing else may be called any more but Wake.
  void GiveBack();

  // Now; follows the window.
  TerminalSize size() const;
  // What the environment says the terminal can show (NO_COLOR, COLORTERM, TERM; LC_ALL, LC_CTYPE,
  // LANG).
  static bool HasColours();
  static bool HasUtf8();

  // Shows these lines from the top, and nothing else. False: nobody can see them any more.
  bool Draw(const std::vector<std::string>& lines);
  // Waits for a key, another size, Wake or the deadline. The key, or 0.
  char Wait(absl::Time deadline);
  // Ends a Wait, now or the next. Any thread.
  void Wake();

 private:
  TerminalScreen() = default;

  termios before_ = {};
  bool taken_ = false;
  int wake_fd_ = -1;
  int resize_fd_ = -1;
};

}  // namespace odmoe
