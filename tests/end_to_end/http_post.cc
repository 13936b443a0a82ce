#include "tests/end_to_end/http_post.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace odmoe {
namespace {

constexpr int kPatienceMilliseconds = 100 * 1000;

absl::StatusOr<std::string> Exchange(const sockaddr_in& address, const std::string& request) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      send(fd, request.data(), request.size(), MSG_NOSIGNAL) != ssize_t(request.size())) {
    const absl::Status status = absl::ErrnoToStatus(errno, "cannot send");
    close(fd);
    return status;
  }
  std::string reply;
  char block[4096];
  pollfd ready{fd, POLLIN, 0};
  while (poll(&ready, 1, kPatienceMilliseconds) > 0) {
    const ssize_t count = recv(fd, block, sizeof(block), 0);
    if (count <= 0) break;
    reply.append(block, size_t(count));
  }
  close(fd);
  return reply;
}

std::string JoinChunks(absl::string_view body) {
  std::string joined;
  while (!body.empty()) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(body, absl::MaxSplits("\r\n", 1));
    const size_t size = std::strtoul(std::string(parts.first).c_str(), nullptr, 16);
    if (size == 0 || size > parts.second.size()) break;
    joined += std::string(parts.second.substr(0, size));
    body = parts.second.substr(std::min(size + 2, parts.second.size()));
  }
  return joined;
}

}  // namespace

absl::StatusOr<HttpReply> HttpPost(const std::string& url, const std::string& path,
                                   const std::string& json) {
  const std::string host_port = url.substr(url.rfind('/') + 1);
  const std::vector<std::string> parts = absl::StrSplit(host_port, ':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  int port = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[1], &port) ||
      inet_pton(AF_INET, parts[0].c_str(), &address.sin_addr) != 1) {
    return absl::InvalidArgumentError(absl::StrCat("not http://ADDRESS:PORT: ", url));
  }
  address.sin_port = htons(static_cast<uint16_t>(port));
  const auto reply = Exchange(
      address, absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: ", host_port,
                            "\r\nConnection: close\r\nContent-Type: application/json\r\n"
                            "Content-Length: ", json.size(), "\r\n\r\n", json));
  if (!reply.ok()) return reply.status();
  const size_t body = reply->find("\r\n\r\n");
  HttpReply result;
  if (body == std::string::npos || reply->size() < 12 ||
      !absl::SimpleAtoi(reply->substr(9, 3), &result.status)) {
    return absl::DataLossError(absl::StrCat("not an HTTP reply: ", *reply));
  }
  const std::string header = absl::AsciiStrToLower(reply->substr(0, body));
  result.body = reply->substr(body + 4);
  if (absl::StrContains(header, "transfer-encoding: chunked")) {
    result.body = JoinChunks(result.body);
  }
  return result;
}

}  // namespace odmoe
