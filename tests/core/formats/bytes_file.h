// Files made of bytes at hand, and the bytes to make them of.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "services/core/io/file.h"

namespace odmoe {

// A file in memory.
std::unique_ptr<RandomAccessFile> BytesFile(std::string bytes);

// Puts numbers and strings together as GGUF stores them.
class ByteString {
 public:
  template <typename T>
  ByteString& Add(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  // A length, then the text.
  ByteString& AddString(absl::string_view text) {
    Add<uint64_t>(text.size());
    return AddRaw(text);
  }
  ByteString& AddRaw(absl::string_view text) {
    bytes_.append(text.data(), text.size());
    return *this;
  }
  ByteString& PadTo(size_t alignment) {
    while (bytes_.size() % alignment != 0) bytes_.push_back('\0');
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace odmoe
