#include "services/core/io/service_process.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/file.h"

namespace odmoe {

TerminationSignals::TerminationSignals() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int TerminationSignals::Wait() {
  int number = 0;
  sigwait(&signals_, &number);
  // From here on their default action, which ends the process.
  pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr);
  return number;
}

TerminationSignals::AtOnce::AtOnce(const TerminationSignals& signals)
    : signals_(signalfd(-1, &signals.signals_, SFD_CLOEXEC)), over_(eventfd(0, EFD_CLOEXEC)) {
  // Without descriptors they wait for the start's end, which will hardly come.
  if (signals_.get() < 0 || over_.get() < 0) return;
  thread_ = std::thread([this] { Watch(); });
}

TerminationSignals::AtOnce::~AtOnce() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(over_.get(), &one, sizeof(one));
  thread_.join();
}

void TerminationSignals::AtOnce::Watch() {
  pollfd polled[] = {{over_.get(), POLLIN, 0}, {signals_.get(), POLLIN, 0}};
  while (poll(polled, 2, -1) < 0 && errno == EINTR) {
  }
  signalfd_siginfo info = {};
  if (polled[0].revents != 0 || read(signals_.get(), &info, sizeof(info)) != sizeof(info)) return;
  // Sent again to a process that has a thread, this one, which lets it through.
  const int number = static_cast<int>(info.ssi_signo);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, number);
  kill(getpid(), number);
  pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
}

absl::Status AnnounceEndpoint(const std::string& endpoint_file, const std::string& address) {
  if (!endpoint_file.empty()) {
    ODMOE_ASSIGN_OR_RETURN(auto file, AtomicFile::Create(PosixFileSystem(), endpoint_file));
    ODMOE_RETURN_IF_ERROR(file->file().Append(absl::StrCat(address, "\n")));
    ODMOE_RETURN_IF_ERROR(file->Commit());
  }
  std::printf("listening on %s\n", address.c_str());
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace odmoe
