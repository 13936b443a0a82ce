#include "services/core/io/service_process.h"

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
