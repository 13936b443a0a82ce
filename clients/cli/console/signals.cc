#include "clients/cli/console/signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdint>

namespace odmoe {
namespace {

sigset_t EndingSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

SignalScope::SignalScope(std::function<void()> on_first) : on_first_(std::move(on_first)) {
  const sigset_t set = EndingSignals();
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC);
  // Without descriptors to watch with, the signals keep their default and kill at once.
  if (stop_fd_ < 0 || signal_fd_ < 0) return;
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  watcher_ = std::thread([this] { Watch(); });
}

SignalScope::~SignalScope() {
  if (watcher_.joinable()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(stop_fd_, &one, sizeof(one));
    watcher_.join();
    const sigset_t set = EndingSignals();
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  }
  if (stop_fd_ >= 0) close(stop_fd_);
  if (signal_fd_ >= 0) close(signal_fd_);
}

void SignalScope::Watch() {
  pollfd fds[2] = {{stop_fd_, POLLIN, 0}, {signal_fd_, POLLIN, 0}};
  while (true) {
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[0].revents != 0) return;
    signalfd_siginfo info;
    if (fds[1].revents == 0 || read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
    const int number = static_cast<int>(info.ssi_signo);
    // No cleanup the second time: it is what a user does when the first did not help.
    if (signal() != 0) _exit(128 + number);
    signal_.store(number, std::memory_order_release);
    cancellation_.Cancel();
    if (on_first_) on_first_();
  }
}

}  // namespace odmoe
