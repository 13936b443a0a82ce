#include "tests/core/formats/bytes_file.h"

#include <cstring>
#include <utility>

namespace odmoe {
namespace {

class MemoryFile : public RandomAccessFile {
 public:
  explicit MemoryFile(std::string bytes) : bytes_(std::move(bytes)) {}

  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
      return absl::OutOfRangeError("read past the end");
    }
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return absl::OkStatus();
  }
  uint64_t size() const override { return bytes_.size(); }
  const std::string& path() const override { return path_; }

 private:
  const std::string bytes_;
  const std::string path_ = "bytes";
};

}  // namespace

std::unique_ptr<RandomAccessFile> BytesFile(std::string bytes) {
  return std::make_unique<MemoryFile>(std::move(bytes));
}

}  // namespace odmoe
