#include "tests/core/formats/gguf_bytes.h"

#include <string>

namespace odmoe {

ByteString GgufHeaderBytes(uint32_t version, uint64_t tensors, uint64_t keys) {
  ByteString bytes;
  bytes.AddRaw("GGUF").Add(version).Add(tensors).Add(keys);
  return bytes;
}

ByteString& GgufKey(ByteString& bytes, absl::string_view name, GgufType type) {
  return bytes.AddString(name).Add(static_cast<int32_t>(type));
}

ByteString& GgufTensorInfo(ByteString& bytes, absl::string_view name, std::vector<int64_t> ne,
                   uint32_t type, uint64_t offset) {
  bytes.AddString(name).Add(static_cast<uint32_t>(ne.size()));
  for (int64_t n : ne) bytes.Add(n);
  return bytes.Add(type).Add(offset);
}

ByteString ValidGguf(uint32_t version) {
  ByteString bytes = GgufHeaderBytes(version, 2, 2);
  GgufKey(bytes, "general.architecture", GgufType::kString).AddString("deepseek2");
  GgufKey(bytes, "numbers", GgufType::kArray)
      .Add(static_cast<int32_t>(GgufType::kI16))
      .Add<uint64_t>(3)
      .Add<int16_t>(-1)
      .Add<int16_t>(0)
      .Add<int16_t>(32767);
  GgufTensorInfo(bytes, "a", {3}, 0, 0);
  GgufTensorInfo(bytes, "b", {2, 2}, 0, 32);
  bytes.PadTo(32);
  for (float v : {1.0f, 2.0f, 3.0f}) bytes.Add(v);
  bytes.PadTo(32);
  for (float v : {4.0f, 5.0f, 6.0f, 7.0f}) bytes.Add(v);
  return bytes;
}

}  // namespace odmoe
