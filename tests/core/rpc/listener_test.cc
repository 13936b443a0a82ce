#include "services/core/rpc/listener.h"

#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace odmoe {
namespace {

// Counts and closes what it is given.
class Counter {
 public:
  Listener::OnConnection Callback() {
    return [this](int fd) {
      close(fd);
      absl::MutexLock lock(&mutex_);
      ++count_;
    };
  }
  bool WaitFor(int count) {
    absl::MutexLock lock(&mutex_);
    auto reached = [this, count] { return count_ >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&reached), absl::Seconds(30));
  }

 private:
  absl::Mutex mutex_;
  int count_ = 0;
};

int DialTcp(const std::string& address) {
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  name.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &name.sin_addr);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0) return fd;
  close(fd);
  return -1;
}

TEST(ListenerTest, PortZeroGivesARealPort) {
  auto listener = Listener::Bind("127.0.0.1:0");
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_NE((*listener)->address(), "127.0.0.1:0");
  Counter counter;
  (*listener)->Start(counter.Callback());
  const int fd = DialTcp((*listener)->address());
  ASSERT_GE(fd, 0);
  EXPECT_TRUE(counter.WaitFor(1));
  close(fd);
}

TEST(ListenerTest, RefusesWhatIsNoAddress) {
  for (const char* address : {"", "127.0.0.1", "example.com:80", "127.0.0.1:70000", "127.0.0.1:x",
                              "[::1:5", "unix:"}) {
    EXPECT_EQ(Listener::Bind(address).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
  EXPECT_EQ(Listener::Bind(absl::StrCat("unix:/", std::string(200, 'x'))).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ListenerTest, ATakenPortIsUnavailable) {
  auto first = Listener::Bind("127.0.0.1:0");
  ASSERT_TRUE(first.ok());
  const auto second = Listener::Bind((*first)->address());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

TEST(ListenerTest, AUnixSocketIsPrivateAndRemoved) {
  const std::string path =
      absl::StrCat(testing::TempDir(), "odmoe-listener-", getpid(), ".sock");
  {
    auto listener = Listener::Bind("unix:" + path);
    ASSERT_TRUE(listener.ok()) << listener.status();
    struct stat info;
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    EXPECT_EQ(Listener::Bind("unix:" + path).status().code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(ListenerTest, AStaleUnixSocketIsReplaced) {
  const std::string path = absl::StrCat(testing::TempDir(), "odmoe-stale-", getpid(), ".sock");
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
  close(fd);  // as a killed process leaves it: the file stays
  auto listener = Listener::Bind("unix:" + path);
  EXPECT_TRUE(listener.ok()) << listener.status();
}

TEST(ListenerTest, AcceptsAgainAfterRunningOutOfDescriptors) {
  auto listener = Listener::Bind("127.0.0.1:0");
  ASSERT_TRUE(listener.ok());
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  Counter counter;
  (*listener)->Start(counter.Callback());
  std::vector<int> hoard;
  for (int fd; hoard.size() < 4096 && (fd = dup(client)) >= 0;) hoard.push_back(fd);
  rlimit none = before;
  none.rlim_cur = 3;  // nothing new can be opened
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  int port = 0;
  ASSERT_TRUE(absl::SimpleAtoi((*listener)->address().substr(10), &port));
  name.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &name.sin_addr);
  ASSERT_EQ(connect(client, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  for (int fd : hoard) close(fd);
  EXPECT_TRUE(counter.WaitFor(1)) << "the connection made meanwhile was never accepted";
  close(client);
}

}  // namespace
}  // namespace odmoe
