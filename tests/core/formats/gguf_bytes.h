// GGUF files put together by hand, right or wrong.
#pragma once

#include <cstdint>
#include <vector>

#include "services/core/formats/gguf.h"
#include "tests/core/formats/bytes_file.h"

namespace odmoe {

// Magic, version and counts.
ByteString GgufHeaderBytes(uint32_t version, uint64_t tensors, uint64_t keys);
// Start of a key: its name and its type.
ByteString& GgufKey(ByteString& bytes, absl::string_view name, GgufType type);
ByteString& GgufTensorInfo(ByteString& bytes, absl::string_view name, std::vector<int64_t> ne,
                           uint32_t type, uint64_t offset);
// Two keys, two f32 tensors of 3 and 4 elements, the second after padding.
ByteString ValidGguf(uint32_t version = 3);

}  // namespace odmoe
