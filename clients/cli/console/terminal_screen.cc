#include "clients/cli/console/terminal_screen.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"

namespace odmoe {
namespace {

// Alternate screen, no cursor; and back.
constexpr absl::string_view kEnter = "\x1b[?1049h\x1b[?25l";
constexpr absl::string_view kLeave = "\x1b[0m\x1b[?25h\x1b[?1049l";

bool WriteAll(absl::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {  // another process has made the terminal non-blocking
      pollfd writable = {STDOUT_FILENO, POLLOUT, 0};
      if (poll(&writable, 1, -1) < 0 && errno != EINTR) return false;
      continue;
    }
    if (n <= 0) return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

sigset_t ResizeSignal() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGWINCH);
  return set;
}

absl::string_view Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

bool TerminalScreen::Possible() {
  const absl::string_view kind = Environment("TERM");
  return isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 && !kind.empty() &&
         kind != "dumb";
}

absl::StatusOr<std::unique_ptr<TerminalScreen>> TerminalScreen::Open() {
  auto screen = absl::WrapUnique(new TerminalScreen);
  if (isatty(STDIN_FILENO) != 1 || isatty(STDOUT_FILENO) != 1 ||
      tcgetattr(STDIN_FILENO, &screen->before_) != 0) {
    return absl::FailedPreconditionError("standard input and output are no terminal");
  }
  const sigset_t resize = ResizeSignal();
  pthread_sigmask(SIG_BLOCK, &resize, nullptr);
  screen->resize_fd_ = signalfd(-1, &resize, SFD_CLOEXEC | SFD_NONBLOCK);
  screen->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  termios raw = screen->before_;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  raw.c_cc[VSUSP] = _POSIX_VDISABLE;
  raw.c_cc[VQUIT] = _POSIX_VDISABLE;
  tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  WriteAll(kEnter);
  screen->taken_ = true;
  return screen;
}

TerminalScreen::~TerminalScreen() {
  GiveBack();
  if (wake_fd_ >= 0) close(wake_fd_);
  if (resize_fd_ >= 0) close(resize_fd_);
}

void TerminalScreen::GiveBack() {
  if (!taken_) return;
  taken_ = false;
  WriteAll(kLeave);
  tcsetattr(STDIN_FILENO, TCSAFLUSH, &before_);
  const sigset_t resize = ResizeSignal();
  pthread_sigmask(SIG_UNBLOCK, &resize, nullptr);
}

TerminalSize TerminalScreen::size() const {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) {
    return {};
  }
  return {size.ws_row, size.ws_col};
}

bool TerminalScreen::HasColours() {
  if (!Environment("NO_COLOR").empty()) return false;
  return !Environment("COLORTERM").empty() || absl::StrContains(Environment("TERM"), "256color");
}

bool TerminalScreen::HasUtf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value = absl::AsciiStrToLower(Environment(name));
    if (value.empty()) continue;
    return absl::StrContains(value, "utf-8") || absl::StrContains(value, "utf8");
  }
  return false;
}

bool TerminalScreen::Draw(const std::vector<std::string>& lines) {
  // In place, each line cleared behind its text and the rest below, so that nothing flickers.
  std::string text = "\x1b[H";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) text += "\r\n";
    text += lines[i];
    text += "\x1b[K";
  }
  return WriteAll(text + "\x1b[J");
}

char TerminalScreen::Wait(absl::Time deadline) {
  const int64_t ms = absl::ToInt64Milliseconds(deadline - absl::Now());
  pollfd fds[3] = {{STDIN_FILENO, POLLIN, 0}, {wake_fd_, POLLIN, 0}, {resize_fd_, POLLIN, 0}};
  if (poll(fds, 3, static_cast<int>(std::clamp<int64_t>(ms, 0, 3'600'000))) <= 0) return 0;
  uint64_t ignored = 0;
  signalfd_siginfo info;
  if (fds[1].revents != 0 && read(wake_fd_, &ignored, sizeof(ignored)) < 0) return 0;
  if (fds[2].revents != 0 && read(resize_fd_, &info, sizeof(info)) < 0) return 0;
  char key = 0;
  if (fds[0].revents == 0) return 0;
  // A terminal that is gone reads as its end: as if 'q' had been pressed.
  return read(STDIN_FILENO, &key, 1) == 1 ? key : 'q';
}

void TerminalScreen::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(wake_fd_, &one, sizeof(one));
}

}  // namespace odmoe
