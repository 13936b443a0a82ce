#include "tests/fuzz/fuzz_file.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace odmoe {
namespace {

class File : public RandomAccessFile {
 public:
  File(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const override {
    if (offset > size_ || out.size() > size_ - offset) return absl::OutOfRangeError("past the end");
    if (!out.empty()) std::memcpy(out.data(), data_ + offset, out.size());
    return absl::OkStatus();
  }
  uint64_t size() const override { return size_; }
  const std::string& path() const override { return path_; }

 private:
  const uint8_t* const data_;
  const size_t size_;
  const std::string path_ = "input";
};

}  // namespace

std::unique_ptr<RandomAccessFile> FuzzFile(const uint8_t* data, size_t size) {
  return std::make_unique<File>(data, size);
}

void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

}  // namespace odmoe
