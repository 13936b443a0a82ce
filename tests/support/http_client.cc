#include "tests/support/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/core/base/status_macros.h"

namespace odmoe {

int HttpClient::MakeSocket() { return ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }

std::unique_ptr<HttpClient> HttpClient::Connect(int port) { return Connect(port, MakeSocket()); }

std::unique_ptr<HttpClient> HttpClient::Connect(int port, int fd) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(uint16_t(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::unique_ptr<HttpClient> client(new HttpClient(fd));
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return nullptr;
  return client;
}

HttpClient::~HttpClient() { Close(); }

void HttpClient::Close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

bool HttpClient::Send(absl::string_view bytes) {
  while (!bytes.empty()) {
    pollfd poll_fd = {fd_, POLLOUT, 0};
    if (::poll(&poll_fd, 1, int(absl::ToInt64Milliseconds(kPatience))) != 1) return false;
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) return false;
    bytes.remove_prefix(size_t(sent));
  }
  return true;
}

bool HttpClient::Request(absl::string_view method, absl::string_view target, absl::string_view body,
                         absl::string_view more_headers) {
  return Send(absl::StrCat(
      method, " ", target, " HTTP/1.1\r\nHost: test\r\n", more_headers,
      body.empty() ? "" : absl::StrCat("Content-Length: ", body.size(), "\r\n"), "\r\n", body));
}

bool HttpClient::ReadSome() {
  pollfd poll_fd = {fd_, POLLIN, 0};
  if (::poll(&poll_fd, 1, int(absl::ToInt64Milliseconds(kPatience))) != 1) return false;
  char bytes[4096];
  const ssize_t size = ::recv(fd_, bytes, sizeof(bytes), 0);
  if (size <= 0) return false;
  buffer_.append(bytes, size_t(size));
  return true;
}

absl::StatusOr<std::string> HttpClient::Take(size_t bytes) {
  while (buffer_.size() < bytes) {
    if (!ReadSome()) return absl::UnavailableError(absl::StrCat("cut off after: ", buffer_));
  }
  std::string taken = buffer_.substr(0, bytes);
  buffer_.erase(0, bytes);
  return taken;
}

absl::StatusOr<std::string> HttpClient::ReadUntil(absl::string_view text) {
  size_t at;
  while ((at = buffer_.find(std::string(text))) == std::string::npos) {
    if (!ReadSome()) return absl::UnavailableError(absl::StrCat("cut off after: ", buffer_));
  }
  return Take(at + text.size());
}

absl::StatusOr<HttpReply> HttpClient::ReadReply(bool head_only) {
  ODMOE_ASSIGN_OR_RETURN(const std::string head, ReadUntil("\r\n\r\n"));
  HttpReply reply;
  for (absl::string_view line : absl::StrSplit(head, "\r\n", absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits(": ", 1));
    if (reply.status == 0) {
      reply.status = std::atoi(std::string(line.substr(line.find(' ') + 1)).c_str());
    } else {
      reply.headers[absl::AsciiStrToLower(parts.first)] = std::string(parts.second);
    }
  }
  if (head_only) return reply;
  if (reply.headers["transfer-encoding"] == "chunked") {
    while (true) {
      ODMOE_ASSIGN_OR_RETURN(const std::string size_line, ReadUntil("\r\n"));
      const size_t size = std::strtoull(size_line.c_str(), nullptr, 16);
      ODMOE_ASSIGN_OR_RETURN(const std::string chunk, Take(size + 2));
      if (size == 0) return reply;
      reply.body += chunk.substr(0, size);
    }
  }
  size_t length = 0;
  if (absl::SimpleAtoi(reply.headers["content-length"], &length)) {
    ODMOE_ASSIGN_OR_RETURN(reply.body, Take(length));
    return reply;
  }
  while (ReadSome()) {
  }
  reply.body = std::exchange(buffer_, "");
  return reply;
}

bool HttpClient::ReadToClose() {
  while (true) {
    pollfd poll_fd = {fd_, POLLIN, 0};
    if (::poll(&poll_fd, 1, int(absl::ToInt64Milliseconds(kPatience))) != 1) return false;
    char bytes[4096];
    if (::recv(fd_, bytes, sizeof(bytes), 0) <= 0) return true;
  }
}

absl::StatusOr<HttpReply> HttpFetch(int port, absl::string_view method, absl::string_view target,
                                    absl::string_view body, absl::string_view more_headers) {
  const std::unique_ptr<HttpClient> client = HttpClient::Connect(port);
  if (client == nullptr) return absl::UnavailableError("cannot connect");
  if (!client->Request(method, target, body, more_headers)) {
    return absl::UnavailableError("cannot send");
  }
  return client->ReadReply(method == "HEAD");
}

}  // namespace odmoe
