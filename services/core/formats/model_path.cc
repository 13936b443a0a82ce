#include "services/core/formats/model_path.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/strip.h"
#include "services/core/formats/gguf_model.h"

namespace odmoe {

bool IsModelFile(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

std::string ModelNameOf(absl::string_view path) {
  while (path.size() > 1 && absl::ConsumeSuffix(&path, "/")) {
  }
  std::string name(path.substr(path.rfind('/') == absl::string_view::npos ? 0
                                                                          : path.rfind('/') + 1));
  if (const auto shard = ParseGgufShardName(name)) return shard->prefix;
  return std::string(absl::StripSuffix(name, ".gguf"));
}

}  // namespace odmoe
