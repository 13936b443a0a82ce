// GGUF keys and values as JSON, exactly: types, order and every bit come back.
//
//   [{"key": "general.architecture", "type": "string", "value": "deepseek2"},
//    {"key": "tokenizer.ggml.tokens", "type": "string", "values": ["!", "\"", ...]}, ...]
//
// `values` is an array's. A float that is not finite is {"bits": "7fc00000"}, a string that is not
// UTF-8 {"base64": "..."}.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// One line a key.
std::string EncodeGgufMetadata(const GgufMetadata& metadata);

// DATA_LOSS: not what the encoder writes; `where` names the place in messages.
absl::StatusOr<GgufMetadata> DecodeGgufMetadata(const nlohmann::json& json,
                                                const std::string& where);

// One value, or an array's elements, as the encoder writes them.
std::string EncodeGgufValue(const GgufValue& value);

}  // namespace odmoe
