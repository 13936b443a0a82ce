// JSON as the commands write it: fields in the order they are set, one document a line.
#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace odmoe {

using Json = nlohmann::ordered_json;

// Never throws: bytes that are not UTF-8 become U+FFFD, numbers that are not finite become null.
inline std::string DumpJson(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace odmoe
