#include "converter/merge/open_as_gguf.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "converter/merge/merge.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/model_index.h"

namespace odmoe {
namespace {

// A planned merge, read in place. Immutable, thread-safe.
class MergedGguf : public RandomAccessFile {
 public:
  explicit MergedGguf(MergePlan plan) : plan_(std::move(plan)) {
    const OutputFile& file = plan_.output.files[0];
    if (file.header != nullptr) Place(0, file.header->size(), {});
    for (const OutputItem& item : file.items) {
      uint64_t offset = item.offset;
      for (const OutputPart& part : item.parts) {
        Place(offset, part.bytes, part);
        offset += part.bytes;
      }
    }
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& a, const Range& b) { return a.offset < b.offset; });
  }

  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const override {
    if (offset > size() || out.size() > size() - offset) {
      return absl::OutOfRangeError(absl::StrCat(path(), ": ", out.size(), " bytes at offset ",
                                                offset, " of ", size()));
    }
    // What lies between ranges is padding.
    std::fill(out.begin(), out.end(), std::byte{0});
    const uint64_t end = offset + out.size();
    auto range = std::upper_bound(ranges_.begin(), ranges_.end(), offset,
                                  [](uint64_t at, const Range& r) { return at < r.offset; });
    if (range != ranges_.begin()) --range;
    for (; range != ranges_.end() && range->offset < end; ++range) {
      const uint64_t begin = std::max(offset, range->offset);
      const uint64_t stop = std::min(end, range->offset + range->bytes);
      if (begin >= stop) continue;
      ODMOE_RETURN_IF_ERROR(ReadRange(*range, begin - range->offset,
                                      out.subspan(begin - offset, stop - begin)));
    }
    return absl::OkStatus();
  }
  uint64_t size() const override { return plan_.output.files[0].bytes; }
  const std::string& path() const override { return plan_.output.destination; }

 private:
  struct Range {
    uint64_t offset = 0;
    uint64_t bytes = 0;
    OutputPart source;  // without a file: the header
  };

  void Place(uint64_t offset, uint64_t bytes, const OutputPart& source) {
    if (bytes > 0) ranges_.push_back({offset, bytes, source});
  }

  absl::Status ReadRange(const Range& range, uint64_t skip, absl::Span<std::byte> out) const {
    if (range.source.file != nullptr) {
      return range.source.file->ReadAt(range.source.offset + skip, out);
    }
    if (range.source.make == nullptr) {
      std::memcpy(out.data(), plan_.output.files[0].header->data() + skip, out.size());
      return absl::OkStatus();
    }
    // Small texts only, such as what lies between tensors.
    std::string made;
    ODMOE_RETURN_IF_ERROR(range.source.make([&made](absl::Span<const std::byte> bytes) {
      made.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return absl::OkStatus();
    }));
    std::memcpy(out.data(), made.data() + skip, out.size());
    return absl::OkStatus();
  }

  const MergePlan plan_;
  std::vector<Range> ranges_;  // by offset
};

}  // namespace

absl::StatusOr<std::unique_ptr<GgufModel>> OpenAsGguf(FileSystem& fs, const std::string& path) {
  const auto entries = fs.ListDirectory(path);
  if (!entries.ok()) return GgufModel::Open(fs, path);
  ODMOE_ASSIGN_OR_RETURN(MergePlan plan, PlanMerge(fs, path, path));
  return GgufModel::Open(fs, std::make_unique<MergedGguf>(std::move(plan)));
}

}  // namespace odmoe
