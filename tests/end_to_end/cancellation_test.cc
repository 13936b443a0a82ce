// Ctrl-C, and calls that are cancelled: work stops and nothing is left behind.
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/end_to_end/deployment.h"
#include "tests/end_to_end/programs.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;

// Nearly all that the model's context holds.
constexpr int kLong = 900;
// On a fast machine work can be over before the signal arrives: it proves nothing then, and is
// begun again, this often.
constexpr int kAttempts = 20;

nlohmann::json InferenceStats(const std::string& endpoint) {
  return OdmoeJson({"stats", "--endpoint", endpoint, "--json"})["services"][0];
}

// Waits until the service has nothing to do, and returns its counters.
nlohmann::json WaitUntilIdle(const std::string& endpoint) {
  nlohmann::json stats;
  for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;) {
    stats = InferenceStats(endpoint);
    if (stats["requests_running"] == 0 && stats["requests_waiting"] == 0) break;
  }
  EXPECT_EQ(stats["requests_running"], 0);
  EXPECT_EQ(stats["requests_waiting"], 0);
  return stats;
}

std::unique_ptr<Subprocess> StartLongGeneration(const std::string& model,
                                                   const std::vector<std::string>& flags) {
  std::vector<std::string> arguments = {"generate", model,    "-p", "Dear",        "-n",
                                        absl::StrCat(kLong), "--temp", "0",  "--ignore-eos"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  auto process = StartOdmoe(arguments);
  if (process == nullptr) return nullptr;
  const absl::Status started = process->WaitForOutput(8, kPatience);
  EXPECT_TRUE(started.ok()) << started;
  return process;
}

TEST(CancellationTest, InterruptedClientStopsTheServicesWork) {
  Deployment deployment("100%");
  deployment.StartStore();
  deployment.StartInference();
  const std::string endpoint = deployment.inference().endpoint;
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    auto client = StartLongGeneration("tiny-kimi", {"--endpoint", endpoint});
    ASSERT_NE(client, nullptr);
    client->Signal(SIGINT);
    const auto exit = client->Wait(kPatience);
    ASSERT_TRUE(exit.ok()) << exit.status();
    if (exit->code == 0 && exit->signal == 0) continue;
    EXPECT_EQ(exit->code, 130) << client->err();
    nlohmann::json stats = WaitUntilIdle(endpoint);
    EXPECT_EQ(stats["requests"], attempt);
    EXPECT_LT(stats["completion_tokens"].get<int>(), attempt * kLong);
    return;
  }
  FAIL() << "every generation was over before it was interrupted";
}

TEST(CancellationTest, KilledClientStopsTheServicesWork) {
  Deployment deployment("100%");
  deployment.StartStore();
  deployment.StartInference();
  const std::string endpoint = deployment.inference().endpoint;
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    auto client = StartLongGeneration("tiny-kimi", {"--endpoint", endpoint});
    ASSERT_NE(client, nullptr);
    client->Kill();
    nlohmann::json stats = WaitUntilIdle(endpoint);
    EXPECT_EQ(stats["requests"], attempt);
    if (stats["completion_tokens"].get<int>() < attempt * kLong) return;
  }
  FAIL() << "every generation went on to its end";
}

TEST(CancellationTest, InterruptEndsAGenerationInThisProcess) {
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    auto client = StartLongGeneration(TinyKimi(), {});
    ASSERT_NE(client, nullptr);
    client->Signal(SIGINT);
    const auto exit = client->Wait(kPatience);
    ASSERT_TRUE(exit.ok()) << exit.status();
    if (exit->code == 0 && exit->signal == 0) continue;
    EXPECT_EQ(exit->code, 130) << client->err();
    EXPECT_THAT(client->err(), ::testing::StartsWith("odmoe: "));
    return;
  }
  FAIL() << "every generation was over before it was interrupted";
}

TEST(CancellationTest, InterruptedConversionLeavesNothing) {
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    const TemporaryDirectory directory;
    const std::string model = directory / "model";
    auto convert = StartOdmoe({"convert", TinyKimiCheckpoint(), "-o", model, "--outtype", "f32"});
    ASSERT_NE(convert, nullptr);
    const auto line = convert->WaitForLine("convert", kPatience);
    ASSERT_TRUE(line.ok()) << line.status();
    convert->Signal(SIGINT);
    const auto exit = convert->Wait(kPatience);
    ASSERT_TRUE(exit.ok()) << exit.status();
    if (exit->code == 0 && exit->signal == 0) continue;
    EXPECT_EQ(exit->code, 130) << convert->err();
    EXPECT_FALSE(std::filesystem::exists(model + "/experts/registry.json"));
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory.path())) {
      EXPECT_NE(entry.path().extension(), ".partial") << entry.path();
    }
    return;
  }
  FAIL() << "every conversion was over before it was interrupted";
}

// A program of which a pseudo terminal is the terminal.
class OnTerminal {
 public:
  OnTerminal(std::vector<std::string> arguments, const std::string& term) {
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    std::string variable = "TERM=" + term;
    std::string language = "LANG=C.UTF-8";
    char* environment[] = {variable.data(), language.data(), nullptr};
    winsize size{};
    size.ws_row = 24;
    size.ws_col = 80;
    pid_ = forkpty(&terminal_, nullptr, nullptr, &size);
    if (pid_ == 0) {
      execve(argv[0], argv.data(), environment);
      _exit(127);
    }
    EXPECT_EQ(tcgetattr(terminal_, &before_), 0);
  }
  ~OnTerminal() {
    if (!exit_.has_value()) kill(pid_, SIGKILL);
    Wait();
    close(terminal_);
  }

  void Type(const std::string& keys) {
    EXPECT_EQ(write(terminal_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  // Reads until `text` is there; false: the program has ended, or taken too long.
  bool WaitFor(const std::string& text) {
    for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;) {
      if (shown_.find(text) != std::string::npos) return true;
      pollfd readable = {terminal_, POLLIN, 0};
      char block[4096];
      if (poll(&readable, 1, 1000) <= 0) continue;
      const ssize_t n = read(terminal_, block, sizeof(block));
      if (n <= 0) return false;
      shown_.append(block, static_cast<size_t>(n));
    }
    return false;
  }
  // Reads on to the program's end; its exit code, or -1 where a signal ended it.
  int Wait() {
    if (exit_.has_value()) return *exit_;
    WaitFor("what no program shows");
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    exit_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return *exit_;
  }
  const std::string& shown() const { return shown_; }
  // Whether keys are echoed and lines edited as before the program.
  bool AsBefore() const {
    termios now{};
    return tcgetattr(terminal_, &now) == 0 && now.c_lflag == before_.c_lflag &&
           now.c_cc[VSUSP] == before_.c_cc[VSUSP];
  }

 private:
  pid_t pid_ = -1;
  int terminal_ = -1;
  termios before_{};
  std::string shown_;
  std::optional<int> exit_;
};

TEST(TerminalTest, TheLiveViewGivesTheTerminalBack) {
  OnTerminal stats({std::string(ODMOE_BIN_DIR) + "/odmoe", "stats", "--endpoint", "127.0.0.1:1"},
                   "xterm-256color");
  ASSERT_TRUE(stats.WaitFor("\x1b[?1049h"));
  ASSERT_TRUE(stats.WaitFor("AWAY, trying again"));
  EXPECT_FALSE(stats.AsBefore());
  stats.Type("\x1a\x1c\x03");  // Ctrl-Z and Ctrl-\ leave it alone
  EXPECT_EQ(stats.Wait(), 130);
  const size_t left = stats.shown().rfind("\x1b[?25h\x1b[?1049l");
  ASSERT_NE(left, std::string::npos);
  EXPECT_THAT(stats.shown().substr(left), HasSubstr("odmoe: interrupted"));
  EXPECT_TRUE(stats.AsBefore());
}

TEST(TerminalTest, ADumbTerminalGetsPlainLines) {
  OnTerminal stats({std::string(ODMOE_BIN_DIR) + "/odmoe", "stats", "--endpoint", "127.0.0.1:1"},
                   "dumb");
  EXPECT_EQ(stats.Wait(), 1);
  EXPECT_THAT(stats.shown(), HasSubstr("is the service running there?"));
  EXPECT_EQ(stats.shown().find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace odmoe
