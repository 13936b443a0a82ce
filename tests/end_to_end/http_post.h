// One HTTP request, as simple as a client can be.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace odmoe {

struct HttpReply {
  int status = 0;
  std::string body;  // chunks joined
};

// Posts JSON to http://HOST:PORT and reads the reply to the connection's end.
absl::StatusOr<HttpReply> HttpPost(const std::string& url, const std::string& path,
                                   const std::string& json);

}  // namespace odmoe
