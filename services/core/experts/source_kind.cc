#include "services/core/experts/source_kind.h"

#include "absl/strings/str_cat.h"

namespace odmoe {

absl::string_view SourceKindName(SourceKind kind) {
  switch (kind) {
    case SourceKind::kDirect:
      return "direct";
    case SourceKind::kMapped:
      return "mmap";
    case SourceKind::kAuto:
      break;
  }
  return "auto";
}

absl::StatusOr<SourceKind> ParseSourceKind(absl::string_view text) {
  for (SourceKind kind : {SourceKind::kAuto, SourceKind::kDirect, SourceKind::kMapped}) {
    if (text == SourceKindName(kind)) return kind;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("not a source: '", text, "'; write auto, direct or mmap"));
}

}  // namespace odmoe
