// An HTTP client that shows every byte, for tests. Every wait has a deadline.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace odmoe {

struct HttpReply {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
};

// One connection to 127.0.0.1. Used by one thread.
class HttpClient {
 public:
  static constexpr absl::Duration kPatience = absl::Seconds(20);

  static std::unique_ptr<HttpClient> Connect(int port);
  // From a socket made before; see MakeSocket.
  static std::unique_ptr<HttpClient> Connect(int port, int fd);
  static int MakeSocket();
  ~HttpClient();

  bool Send(absl::string_view bytes);
  // A request with a Host header and, where there is a body, its length.
  bool Request(absl::string_view method, absl::string_view target, absl::string_view body = "",
               absl::string_view more_headers = "");
  // The next whole answer. `head_only`: to a HEAD request.
  absl::StatusOr<HttpReply> ReadReply(bool head_only = false);
  // Raw bytes until they contain `text`, that included.
  absl::StatusOr<std::string> ReadUntil(absl::string_view text);
  // Whether the server closes the connection; what it sends before is dropped.
  bool ReadToClose();
  // Ends the connection at once.
  void Close();

 private:
  explicit HttpClient(int fd) : fd_(fd) {}
  bool ReadSome();
  absl::StatusOr<std::string> Take(size_t bytes);

  int fd_;
  std::string buffer_;
};

// One request on a connection of its own.
absl::StatusOr<HttpReply> HttpFetch(int port, absl::string_view method, absl::string_view target,
                                    absl::string_view body = "",
                                    absl::string_view more_headers = "");

}  // namespace odmoe
