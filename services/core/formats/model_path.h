// What a path names that is given as a model.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace odmoe {

// True: a file, which is then a GGUF file or a shard of one, to be served in place; else a model
// directory.
bool IsModelFile(const std::string& path);

// The name requests give a model: the last component of its path, without ".gguf" and without a
// shard's number. "" for a path without one.
std::string ModelNameOf(absl::string_view path);

}  // namespace odmoe
