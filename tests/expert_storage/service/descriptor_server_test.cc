#include "services/expert_storage/service/descriptor_server.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>

#include "absl/synchronization/notification.h"
#include "clients/cpp/mapped_descriptor.h"
#include "gtest/gtest.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

class DescriptorServerTest : public ::testing::Test {
 protected:
  DescriptorServerTest() : server_(DescriptorServer::Start(directory_.path()).value()) {
    file_ = OwnedFd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(ftruncate(file_.get(), 4096), 0);
    EXPECT_EQ(pwrite(file_.get(), "hello", 5, 0), 5);
  }

  std::string Offer() {
    DescriptorServer::Offer offer;
    offer.on_taken = [this](std::shared_ptr<DescriptorServer::Peer> peer) {
      ++taken_;
      peer_ = std::move(peer);
      return allowed_.load() && peer_->Send("F", {file_.get()});
    };
    offer.on_packet = [this](absl::string_view packet) {
      said_ = std::string(packet);
      heard_.Notify();
      return packet != "nonsense";
    };
    offer.on_released = [this] { released_.Notify(); };
    return server_->MakeOffer(std::move(offer)).value();
  }

  TemporaryDirectory directory_;
  OwnedFd file_;
  std::atomic<int> taken_{0};
  std::atomic<bool> allowed_{true};
  absl::Notification released_;
  absl::Notification heard_;
  std::string said_;
  std::shared_ptr<DescriptorServer::Peer> peer_;
  std::unique_ptr<DescriptorServer> server_;
};

TEST_F(DescriptorServerTest, ATokenGetsItsDescriptorsOnce) {
  const std::string token = Offer();
  EXPECT_EQ(token.size(), DescriptorServer::kTokenBytes);
  {
    const auto fetched = FetchDescriptors(server_->socket_path(), token, 1);
    ASSERT_TRUE(fetched.ok()) << fetched.status();
    char text[5];
    ASSERT_EQ(pread(fetched->fds[0].get(), text, 5, 0), 5);
    EXPECT_EQ(std::string(text, 5), "hello");
    EXPECT_TRUE(absl::IsPermissionDenied(
        FetchDescriptors(server_->socket_path(), token, 1).status()));
    EXPECT_FALSE(released_.HasBeenNotified());
  }
  EXPECT_TRUE(released_.WaitForNotificationWithTimeout(absl::Minutes(1)));
  EXPECT_EQ(taken_, 1);
}

TEST_F(DescriptorServerTest, OtherTokensGetNothing) {
  const std::string token = Offer();
  std::string wrong = token;
  wrong[7] ^= 1;
  for (const std::string& bad : {wrong, std::string(16, '\0'), token.substr(0, 15), token + "x",
                                 std::string("x"), std::string(1000, 'x')}) {
    EXPECT_FALSE(FetchDescriptors(server_->socket_path(), bad, 1).ok());
  }
  EXPECT_EQ(taken_, 0);
  EXPECT_TRUE(FetchDescriptors(server_->socket_path(), token, 1).ok());
}

TEST_F(DescriptorServerTest, ARevokedTokenGetsNothing) {
  const std::string token = Offer();
  server_->Revoke(token);
  EXPECT_TRUE(
      absl::IsPermissionDenied(FetchDescriptors(server_->socket_path(), token, 1).status()));
}

TEST_F(DescriptorServerTest, WhoeverMayNotTakeGetsNothing) {
  allowed_ = false;
  EXPECT_TRUE(
      absl::IsPermissionDenied(FetchDescriptors(server_->socket_path(), Offer(), 1).status()));
  // Whatever it may have been given counts as taken until then.
  EXPECT_TRUE(released_.WaitForNotificationWithTimeout(absl::Minutes(1)));
}

TEST_F(DescriptorServerTest, PacketsGoBothWaysAfterwards) {
  const auto fetched = FetchDescriptors(server_->socket_path(), Offer(), 1);
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  ASSERT_TRUE(peer_->Send("more", {file_.get(), file_.get()}));
  const auto packet = ReceivePacket(fetched->socket);
  ASSERT_TRUE(packet.ok()) << packet.status();
  EXPECT_EQ(packet->bytes, "more");
  EXPECT_EQ(packet->fds.size(), 2u);
  ASSERT_EQ(send(fetched->socket.get(), "nonsense", 8, MSG_NOSIGNAL), 8);
  ASSERT_TRUE(heard_.WaitForNotificationWithTimeout(absl::Minutes(1)));
  EXPECT_EQ(said_, "nonsense");
  EXPECT_TRUE(released_.WaitForNotificationWithTimeout(absl::Minutes(1)));
  EXPECT_FALSE(peer_->Send("gone", {}));
  EXPECT_TRUE(absl::IsUnavailable(ReceivePacket(fetched->socket).status()));
}

TEST_F(DescriptorServerTest, APacketThatIsCutShortLeavesNoDescriptorOpen) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  const OwnedFd near(pair[0]), far(pair[1]);
  const auto send_packet = [&](size_t bytes, size_t fds) {
    std::string text(bytes, 'x');
    iovec data{text.data(), text.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(253 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds * sizeof(int));
    for (size_t i = 0; i < fds; ++i) {
      const int fd = file_.get();
      std::memcpy(CMSG_DATA(header) + i * sizeof(int), &fd, sizeof(int));
    }
    ASSERT_EQ(sendmsg(far.get(), &message, 0), static_cast<ssize_t>(bytes));
  };
  const auto open_fds = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = open_fds();
  const auto expect_refused = [&] {
    const auto packet = ReceivePacket(near);
    EXPECT_TRUE(absl::IsUnavailable(packet.status())) << packet.status();
    EXPECT_NE(packet.status().message().find("cut short"), std::string::npos) << packet.status();
  };
  send_packet(1, 253);  // more than a client has room for
  expect_refused();
  EXPECT_EQ(open_fds(), before);
  send_packet(5000, 2);  // a text that is too long
  expect_refused();
  EXPECT_EQ(open_fds(), before);
  // More than the process may open.
  send_packet(1, 8);
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  const OwnedFd highest(dup(near.get()));
  const rlimit few = {static_cast<rlim_t>(highest.get()) + 3, limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  expect_refused();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(open_fds(), before + 1);
  // The socket serves on.
  send_packet(1, 2);
  const auto packet = ReceivePacket(near);
  ASSERT_TRUE(packet.ok()) << packet.status();
  EXPECT_EQ(packet->fds.size(), 2u);
}

TEST_F(DescriptorServerTest, TheSocketIsThisUsersAlone) {
  struct stat info;
  ASSERT_EQ(stat(server_->socket_path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(DescriptorServerTest, ManySilentConnectionsDoNotKeepOthersOut) {
  std::vector<OwnedFd> silent;
  for (int i = 0; i < 200; ++i) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, server_->socket_path().c_str(), sizeof(address.sun_path) - 1);
    silent.emplace_back(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(silent.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)),
              0);
  }
  EXPECT_TRUE(FetchDescriptors(server_->socket_path(), Offer(), 1).ok());
}

TEST_F(DescriptorServerTest, ItsEndRemovesTheSocketAndEndsConnections) {
  const std::string path = server_->socket_path();
  const auto fetched = FetchDescriptors(path, Offer(), 1);
  ASSERT_TRUE(fetched.ok());
  server_.reset();
  EXPECT_TRUE(released_.HasBeenNotified());
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(absl::IsUnavailable(FetchDescriptors(path, std::string(16, 'x'), 1).status()));
}

TEST(DescriptorServerStartTest, ItsOwnDirectoryIsPrivateAndRemoved) {
  std::string directory;
  {
    const auto server = DescriptorServer::Start("").value();
    directory = std::filesystem::path(server->socket_path()).parent_path().string();
    struct stat info;
    ASSERT_EQ(stat(directory.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700u);
  }
  EXPECT_FALSE(std::filesystem::exists(directory));
}

// A socket that was bound and is listened to by nobody.
void BindDeadSocket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  const OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
}

void MakeOld(const std::string& path) {
  timespec times[2] = {};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
}

TEST(DescriptorServerStartTest, ADeadStoresSocketIsRemovedAndALiveOnesIsNot) {
  const TemporaryDirectory directory;
  const auto live = DescriptorServer::Start(directory.path()).value();
  const std::string alive = directory / "expert-storage-0.socket";
  std::filesystem::rename(live->socket_path(), alive);
  const std::string dead = directory / "expert-storage-1.socket";
  const std::string starting = directory / "expert-storage-2.socket";
  for (const std::string& path : {dead, starting}) BindDeadSocket(path);
  for (const std::string& path : {dead, alive}) MakeOld(path);
  const auto server = DescriptorServer::Start(directory.path()).value();
  EXPECT_FALSE(std::filesystem::exists(dead));
  // Bound just now, its store may be about to listen.
  EXPECT_TRUE(std::filesystem::exists(starting));
  EXPECT_TRUE(std::filesystem::exists(alive));
  EXPECT_TRUE(std::filesystem::exists(server->socket_path()));
  std::filesystem::remove(alive);
}

TEST(DescriptorServerStartTest, APrivateDirectoryOfAKilledStoreIsRemoved) {
  const TemporaryDirectory base;
  const char* old = getenv("TMPDIR");
  const std::string before = old == nullptr ? "" : old;
  ASSERT_EQ(setenv("TMPDIR", base.path().c_str(), 1), 0);
  const std::string killed = base / "odmoe-expert-storage-abcdef";
  const std::string others = base / "odmoe-expert-storage-ghijkl";
  for (const std::string& path : {killed, others}) std::filesystem::create_directory(path);
  BindDeadSocket(killed + "/expert-storage-1.socket");
  MakeOld(killed + "/expert-storage-1.socket");
  WriteFileOrDie(others + "/notes", "not a socket");
  for (const std::string& path : {killed, others}) MakeOld(path);
  const auto live = DescriptorServer::Start("").value();
  const auto server = DescriptorServer::Start("").value();
  EXPECT_FALSE(std::filesystem::exists(killed));
  EXPECT_TRUE(std::filesystem::exists(others + "/notes"));
  EXPECT_TRUE(std::filesystem::exists(live->socket_path()));
  if (before.empty()) {
    unsetenv("TMPDIR");
  } else {
    setenv("TMPDIR", before.c_str(), 1);
  }
}

TEST(DescriptorServerStartTest, ADirectoryThatIsNotThereIsUnavailable) {
  EXPECT_TRUE(absl::IsUnavailable(DescriptorServer::Start("/does/not/exist").status()));
}

TEST(DescriptorServerStartTest, APathTooLongForASocketIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(
      DescriptorServer::Start("/tmp/" + std::string(120, 'x')).status()));
}

}  // namespace
}  // namespace odmoe
