#include "tests/support/subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

extern char** environ;

namespace odmoe {
namespace {

struct Pipe {
  int read = -1;
  int write = -1;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe2");
  return Pipe{fds[0], fds[1]};
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> Environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(*entry, absl::MaxSplits('=', 1));
    if (!added.contains(parts.first)) all.emplace_back(*entry);
  }
  for (const auto& [name, value] : added) all.push_back(absl::StrCat(name, "=", value));
  return all;
}

int PollMilliseconds(absl::Time deadline) {
  const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
  return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(left) + 1, 1 << 30));
}

// Between fork and exec: only calls that are safe there.
[[noreturn]] void Exec(char* const* arguments, char* const* environment, const Pipe& in,
                       const Pipe& out, const Pipe& err) {
  // A child must not outlive a test that crashed.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(in.read, STDIN_FILENO);
  dup2(out.write, STDOUT_FILENO);
  dup2(err.write, STDERR_FILENO);
  execve(arguments[0], arguments, environment);
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Subprocess>> Subprocess::Start(const Options& options) {
  if (access(options.arguments[0].c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("no program ", options.arguments[0]));
  }
  std::vector<std::string> arguments = options.arguments;
  std::vector<std::string> environment = Environment(options.environment);
  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> envp = Pointers(environment);
  const auto in = MakePipe(), out = MakePipe(), err = MakePipe();
  if (!in.ok() || !out.ok() || !err.ok()) return absl::ResourceExhaustedError("no pipes");
  std::unique_ptr<Subprocess> process(new Subprocess());
  process->program_ = options.arguments[0];
  process->pid_ = fork();
  if (process->pid_ == 0) Exec(argv.data(), envp.data(), *in, *out, *err);
  close(in->read);
  close(out->write);
  close(err->write);
  process->out_.fd = out->read;
  process->err_.fd = err->read;
  const ssize_t written = write(in->write, options.input.data(), options.input.size());
  close(in->write);
  if (process->pid_ < 0) return absl::ErrnoToStatus(errno, "fork");
  process->pid_fd_ = static_cast<int>(syscall(SYS_pidfd_open, process->pid_, 0));
  if (process->pid_fd_ < 0) return absl::ErrnoToStatus(errno, "pidfd_open");
  if (written != static_cast<ssize_t>(options.input.size())) {
    return absl::InvalidArgumentError("the input does not fit into the pipe");
  }
  return process;
}

absl::StatusOr<ProcessOutput> Subprocess::Run(const Options& options, absl::Duration timeout) {
  auto process = Start(options);
  if (!process.ok()) return process.status();
  const auto exit = (*process)->Wait(timeout);
  if (!exit.ok()) return exit.status();
  return ProcessOutput{*exit, (*process)->out(), (*process)->err()};
}

Subprocess::~Subprocess() {
  Kill();
  for (const int fd : {out_.fd, err_.fd, pid_fd_}) {
    if (fd >= 0) close(fd);
  }
}

absl::StatusOr<std::string> Subprocess::WaitForLine(absl::string_view text,
                                                    absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    for (const Stream* stream : {&out_, &err_}) {
      const size_t found = stream->text.find(std::string(text));
      const size_t end = found == std::string::npos ? found : stream->text.find('\n', found);
      if (end == std::string::npos) continue;
      const size_t begin = stream->text.rfind('\n', found);
      return stream->text.substr(begin == std::string::npos ? 0 : begin + 1,
                                 end - (begin == std::string::npos ? 0 : begin + 1));
    }
    if (ended()) {
      return absl::FailedPreconditionError(
          absl::StrCat("ended without a line that has \"", text, "\": ", Describe()));
    }
    if (!ReadSome(deadline)) {
      return absl::DeadlineExceededError(absl::StrCat("no line with \"", text, "\": ", Describe()));
    }
  }
}

absl::Status Subprocess::WaitForOutput(size_t bytes, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (out_.text.size() < bytes) {
    if (ended()) return absl::FailedPreconditionError(absl::StrCat("ended early: ", Describe()));
    if (!ReadSome(deadline)) return absl::DeadlineExceededError(Describe());
  }
  return absl::OkStatus();
}

absl::StatusOr<ProcessExit> Subprocess::Wait(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!ended()) {
    if (!ReadSome(deadline)) return absl::DeadlineExceededError(Describe());
  }
  if (reaped_) return exit_;
  pollfd ready{pid_fd_, POLLIN, 0};
  if (poll(&ready, 1, PollMilliseconds(deadline)) <= 0) {
    return absl::DeadlineExceededError(Describe());
  }
  int status = 0;
  waitpid(pid_, &status, 0);
  reaped_ = true;
  exit_ =
      WIFSIGNALED(status) ? ProcessExit{0, WTERMSIG(status)} : ProcessExit{WEXITSTATUS(status), 0};
  return exit_;
}

void Subprocess::Signal(int signal) {
  if (pid_ > 0 && !reaped_) kill(pid_, signal);
}

void Subprocess::Kill() {
  if (pid_ <= 0 || reaped_) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  reaped_ = true;
  exit_ = {0, SIGKILL};
}

bool Subprocess::ReadSome(absl::Time deadline) {
  pollfd ready[2] = {{out_.fd, POLLIN, 0}, {err_.fd, POLLIN, 0}};
  if (poll(ready, 2, PollMilliseconds(deadline)) <= 0) return false;
  Stream* streams[2] = {&out_, &err_};
  for (int i = 0; i < 2; ++i) {
    if (ready[i].revents == 0) continue;
    char block[16 * 1024];
    const ssize_t count = read(streams[i]->fd, block, sizeof(block));
    if (count > 0) {
      streams[i]->text.append(block, static_cast<size_t>(count));
    } else {
      close(streams[i]->fd);
      streams[i]->fd = -1;
    }
  }
  return true;
}

std::string Subprocess::Describe() const {
  return absl::StrCat(program_, "\n--- out\n", out_.text, "\n--- err\n", err_.text);
}

}  // namespace odmoe
