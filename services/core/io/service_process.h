// What every service's main() does around serving: signals, and saying where it listens.
#pragma once

#include <signal.h>

#include <string>
#include <thread>

#include "absl/status/status.h"
#include "services/core/io/owned_fd.h"

namespace odmoe {

// SIGINT and SIGTERM as a call that returns. Made in main() before any thread, which then all have
// them blocked; SIGPIPE is ignored from then on. One a process.
class TerminationSignals {
 public:
  TerminationSignals();
  // Waits for the first signal and returns its number. A second one ends the process at once.
  int Wait();

  // While it lives the first signal ends the process at once, as if nobody had them blocked: for a
  // start that takes long, when there is nothing yet to end in order.
  class AtOnce {
   public:
    // `signals` outlives it.
    explicit AtOnce(const TerminationSignals& signals);
    ~AtOnce();
    AtOnce(const AtOnce&) = delete;
    AtOnce& operator=(const AtOnce&) = delete;

   private:
    void Watch();

    const OwnedFd signals_;
    const OwnedFd over_;  // readable once it is to go
    std::thread thread_;
  };

 private:
  sigset_t signals_;
};

// Tells who started this process that it serves: writes `address` and a newline to `endpoint_file`,
// unless that is empty, at once or not at all; then prints "listening on ADDRESS".
absl::Status AnnounceEndpoint(const std::string& endpoint_file, const std::string& address);

}  // namespace odmoe
