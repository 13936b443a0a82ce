#include "services/core/formats/file_kind.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace odmoe {
namespace {

struct Signature {
  absl::string_view begins;
  absl::string_view description;
};

constexpr Signature kSignatures[] = {
    {"GGUF", "a GGUF file"},
    {"version https://git-lfs",
     "a Git LFS pointer: the file itself was not downloaded (git lfs pull fetches it)"},
    {"PK\x03\x04",
     "a zip archive, such as a PyTorch checkpoint: its pickles can run code and are not read; "
     "convert it to safetensors first"},
    {"\x80\x02", "a Python pickle: it can run code and is not read; convert it to safetensors "
                   "first"},
    {"\x80\x04", "a Python pickle: it can run code and is not read; convert it to safetensors "
                   "first"},
    {"lmgg", "a GGML file of before GGUF; convert the original checkpoint instead"},
    {"fmgg", "a GGML file of before GGUF; convert the original checkpoint instead"},
    {"tjgg", "a GGML file of before GGUF; convert the original checkpoint instead"},
    {"\x1f\x8b", "a gzip archive: unpack it first"},
    {"\x28\xb5\x2f\xfd", "a zstd archive: unpack it first"},
    {"\x89HDF\r\n", "an HDF5 file"},
    {"{", "a JSON file"},
};

// A web server's answer in place of the file, whatever its spelling.
bool IsHtml(absl::string_view head) {
  const std::string text = absl::AsciiStrToLower(absl::StripLeadingAsciiWhitespace(head));
  return absl::StartsWith(text, "<!doctype html") || absl::StartsWith(text, "<html");
}

bool IsSafetensors(absl::string_view head, uint64_t size) {
  uint64_t length = 0;
  if (head.size() < sizeof(length) + 1) return false;
  std::memcpy(&length, head.data(), sizeof(length));
  return length <= size - sizeof(length) && head[sizeof(length)] == '{';
}

}  // namespace

std::string LooksLike(const RandomAccessFile& file) {
  if (file.size() == 0) return "; it is empty";
  char bytes[256];
  const size_t count = static_cast<size_t>(std::min<uint64_t>(file.size(), sizeof(bytes)));
  if (!file.ReadAt(0, absl::MakeSpan(reinterpret_cast<std::byte*>(bytes), count)).ok()) return "";
  const absl::string_view head(bytes, count);
  if (head.find_first_not_of('\0') == absl::string_view::npos) {
    return "; it begins with zeros, as a download does that was cut off";
  }
  if (IsSafetensors(head, file.size())) return "; it looks like a safetensors file";
  for (const Signature& known : kSignatures) {
    if (absl::StartsWith(head, known.begins)) {
      return absl::StrCat("; it looks like ", known.description);
    }
  }
  if (IsHtml(head)) {
    return "; it looks like an HTML page: the download failed or needs a login";
  }
  return "";
}

}  // namespace odmoe
