#include "converter/output/planned_file.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

class PlannedFile : public RandomAccessFile {
 public:
  PlannedFile(const OutputFile& file, std::string path) : file_(file), path_(std::move(path)) {
    for (const OutputItem& item : file.items) {
      uint64_t at = item.offset;
      for (const OutputPart& part : item.parts) {
        parts_.push_back({at, &part});
        at += part.bytes;
      }
    }
    std::sort(parts_.begin(), parts_.end(),
              [](const Placed& a, const Placed& b) { return a.offset < b.offset; });
  }

  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const override {
    if (offset > size() || out.size() > size() - offset) {
      return absl::OutOfRangeError(absl::StrCat(path_, ": cannot read ", out.size(),
                                                " bytes at offset ", offset, ": the file has ",
                                                size(), " bytes"));
    }
    std::fill(out.begin(), out.end(), std::byte{0});
    const uint64_t end = offset + out.size();
    const std::string& header = *file_.header;
    if (offset < header.size()) {
      std::memcpy(out.data(), header.data() + offset,
                  std::min<uint64_t>(end, header.size()) - offset);
    }
    auto part = std::lower_bound(
        parts_.begin(), parts_.end(), offset,
        [](const Placed& placed, uint64_t at) { return placed.offset + placed.part->bytes <= at; });
    for (; part != parts_.end() && part->offset < end; ++part) {
      const uint64_t from = std::max(part->offset, offset);
      const uint64_t to = std::min(part->offset + part->part->bytes, end);
      ODMOE_RETURN_IF_ERROR(
          ReadPart(*part->part, from - part->offset, out.subspan(from - offset, to - from)));
    }
    return absl::OkStatus();
  }

  uint64_t size() const override { return file_.bytes; }
  const std::string& path() const override { return path_; }

 private:
  struct Placed {
    uint64_t offset;
    const OutputPart* part;
  };

  static absl::Status ReadPart(const OutputPart& part, uint64_t from, absl::Span<std::byte> out) {
    if (part.file != nullptr) return part.file->ReadAt(part.offset + from, out);
    uint64_t made = 0;
    return part.make([&](absl::Span<const std::byte> piece) {
      const uint64_t begin = std::max(made, from),
                     end = std::min(made + piece.size(), from + out.size());
      if (begin < end)
        std::memcpy(out.data() + (begin - from), piece.data() + (begin - made), end - begin);
      made += piece.size();
      return absl::OkStatus();
    });
  }

  const OutputFile& file_;
  const std::string path_;
  std::vector<Placed> parts_;
};

}  // namespace

std::unique_ptr<RandomAccessFile> OpenPlannedFile(const OutputFile& file, std::string path) {
  return std::make_unique<PlannedFile>(file, std::move(path));
}

}  // namespace odmoe
