// An HTTP request and a whole answer to it, free of the library that carries them.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace odmoe {

struct HttpRequest {
  std::string method;         // "GET"
  std::string path;           // "/v1/models", without the query
  std::string authorization;  // that header's value, or ""
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};  // ours, never a client's text
};

}  // namespace odmoe
