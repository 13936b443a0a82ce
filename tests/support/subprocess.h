// A child process under a test's control. Every wait has a deadline and none is a sleep.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace odmoe {

// How a process ended.
struct ProcessExit {
  int code = 0;    // exit code, where signal is 0
  int signal = 0;  // that killed it
};

// What a whole run left.
struct ProcessOutput {
  ProcessExit exit;
  std::string out;
  std::string err;
};

// Used by one thread at a time. The destructor kills the process and reaps it.
class Subprocess {
 public:
  struct Options {
    std::vector<std::string> arguments;              // [0] is the program's path
    std::map<std::string, std::string> environment;  // added to ours
    std::string input;                               // its standard input; at most 32 KiB
  };

  static absl::StatusOr<std::unique_ptr<Subprocess>> Start(const Options& options);
  // Starts it and waits for its end.
  static absl::StatusOr<ProcessOutput> Run(const Options& options,
                                           absl::Duration timeout = absl::Seconds(100));
  ~Subprocess();
  Subprocess(const Subprocess&) = delete;
  Subprocess& operator=(const Subprocess&) = delete;

  pid_t pid() const { return pid_; }
  // Output so far.
  const std::string& out() const { return out_.text; }
  const std::string& err() const { return err_.text; }

  // Waits until standard output, or error, has a line with `text` in it, and returns that line.
  // FAILED_PRECONDITION: the process ended without; the message has its output.
  absl::StatusOr<std::string> WaitForLine(absl::string_view text, absl::Duration timeout);
  // Waits until standard output has at least `bytes` bytes.
  absl::Status WaitForOutput(size_t bytes, absl::Duration timeout);
  // Waits for the end.
  absl::StatusOr<ProcessExit> Wait(absl::Duration timeout);
  void Signal(int signal);
  // SIGKILL, and reaped.
  void Kill();

 private:
  struct Stream {
    int fd = -1;
    std::string text;
  };
  Subprocess() = default;
  // Reads what comes, until the deadline. False: nothing came by then.
  bool ReadSome(absl::Time deadline);
  bool ended() const { return out_.fd < 0 && err_.fd < 0; }
  std::string Describe() const;

  std::string program_;
  pid_t pid_ = -1;
  int pid_fd_ = -1;
  Stream out_, err_;
  bool reaped_ = false;
  ProcessExit exit_;
};

}  // namespace odmoe
