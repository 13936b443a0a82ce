#include "converter/output/output_plan.h"

#include <algorithm>
#include <filesystem>
#include <type_traits>

#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "converter/output/xxh3.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// Raised when the same input and options give other bytes than before: an older version's
// unfinished output must not be continued.
constexpr uint64_t kEngineVersion = 1;

// Enough for a header to differ where the weights' shapes or names do.
constexpr uint64_t kSourceHeadBytes = 256 * kKiB;

// XXH3-128 of numbers and texts, each told apart from its neighbours.
class FingerprintHash {
 public:
  FingerprintHash() : state_(XXH3_createState()) { XXH3_128bits_reset(state_.get()); }

  template <typename T>
  void Number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    const uint64_t wide = static_cast<uint64_t>(value);
    XXH3_128bits_update(state_.get(), &wide, sizeof(wide));
  }
  void Text(absl::string_view text) {
    Number(text.size());
    XXH3_128bits_update(state_.get(), text.data(), text.size());
  }
  OutputFingerprint Digest() const {
    const XXH128_hash_t digest = XXH3_128bits_digest(state_.get());
    return {digest.low64, digest.high64};
  }

 private:
  Xxh3State state_;
};

void AddFile(const OutputFile& file, FingerprintHash& hash) {
  hash.Text(file.path);
  hash.Number(file.bytes);
  hash.Text(file.header != nullptr ? *file.header : "");
  hash.Number(file.items.size());
  for (const OutputItem& item : file.items) {
    hash.Text(item.name);
    hash.Number(item.offset);
    hash.Number(item.parts.size());
    for (const OutputPart& part : item.parts) {
      hash.Number(part.bytes);
      hash.Number(part.file != nullptr);
      hash.Number(part.offset);
    }
  }
}

absl::Status AddSource(const RandomAccessFile& source, FingerprintHash& hash) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(source.path(), error);
  if (error) return absl::InvalidArgumentError(absl::StrCat(source.path(), ": ", error.message()));
  hash.Text(absolute.lexically_normal().string());
  hash.Number(source.size());
  hash.Number(source.modified_ns());
  std::string head(std::min(source.size(), kSourceHeadBytes), '\0');
  ODMOE_RETURN_IF_ERROR(source.ReadAt(
      0, absl::MakeSpan(reinterpret_cast<std::byte*>(head.data()), head.size())));
  hash.Text(head);
  return absl::OkStatus();
}

}  // namespace

uint64_t OutputItem::bytes() const {
  uint64_t sum = 0;
  for (const OutputPart& part : parts) sum += part.bytes;
  return sum;
}

uint64_t OutputPlan::item_count() const {
  uint64_t count = 0;
  for (const OutputFile& file : files) count += file.items.size();
  return count;
}

uint64_t OutputPlan::data_bytes() const {
  uint64_t bytes = 0;
  for (const OutputFile& file : files) {
    for (const OutputItem& item : file.items) bytes += item.bytes();
  }
  return bytes;
}

std::string JournalPath(absl::string_view destination, bool is_file) {
  return absl::StrCat(destination, is_file ? ".journal" : "/conversion.journal");
}

absl::Status SetFingerprint(OutputPlan& plan, absl::string_view options,
                            absl::Span<const RandomAccessFile* const> sources) {
  FingerprintHash hash;
  hash.Number(kEngineVersion);
  hash.Text(options);
  hash.Number(plan.files.size());
  for (const OutputFile& file : plan.files) AddFile(file, hash);
  hash.Number(sources.size());
  for (const RandomAccessFile* source : sources) ODMOE_RETURN_IF_ERROR(AddSource(*source, hash));
  plan.fingerprint = hash.Digest();
  return absl::OkStatus();
}

}  // namespace odmoe
