// What every service's main() does around serving: signals, and saying where it listens.
#pragma once

#include <signal.h>

#include <string>

#include "absl/status/status.h"

namespace odmoe {

// SIGINT and SIGTERM as a call that returns. Made in main() before any thread, which then all have
// them blocked; SIGPIPE is ignored from then on. One a process.
class TerminationSignals {
 public:
  TerminationSignals();
  // Waits for the first signal and returns its number. A second one ends the process at once.
  int Wait();

 private:
  sigset_t signals_;
};

// Tells who started this process that it serves: writes `address` and a newline to `endpoint_file`,
// unless that is empty, at once or not at all; then prints "listening on ADDRESS".
absl::Status AnnounceEndpoint(const std::string& endpoint_file, const std::string& address);

}  // namespace odmoe
