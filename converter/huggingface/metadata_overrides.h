// Keys that a user sets by hand: "llama.context_length=8192", "general.tags=[\"a\"]", "x.y=u64:5".
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/core/formats/gguf.h"
#include "services/core/io/file.h"

namespace odmoe {

struct MetadataOverride {
  std::string key;
  std::optional<GgufType> type;  // where it was named
  std::string value;
};

// Each argument is KEY=VALUE, KEY=TYPE:VALUE (u8 to u64, i8 to i64, f32, f64, bool, string), or,
// without "=", a file of such lines ("#" begins a comment) or of one JSON object. NOT_FOUND: no
// such file. INVALID_ARGUMENT: an argument, line or value that is none, a key that is empty or
// there twice.
absl::StatusOr<std::vector<MetadataOverride>> ReadMetadataOverrides(
    FileSystem& fs, const std::vector<std::string>& arguments);

// Sets them: in place of a key that is there, else at the end. Without a type named, a value gets
// that of the key it replaces, else it is true or false, a u32 (larger or negative: i64), an f32, a
// list of these or text, as it looks. INVALID_ARGUMENT: a value that is not of its type.
absl::Status ApplyMetadataOverrides(const std::vector<MetadataOverride>& overrides,
                                    GgufMetadata& metadata);

}  // namespace odmoe
