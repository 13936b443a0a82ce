// Who may use the API.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

// Keys, kept as SHA-256 digests and compared in constant time. Immutable, so thread-safe.
class ApiKeys {
 public:
  ApiKeys() = default;  // no key is needed
  explicit ApiKeys(const std::vector<std::string>& keys);

  // One key a line; empty lines and those that begin with '#' do not count. INVALID_ARGUMENT: no
  // key in it, or one with white space. NOT_FOUND, PERMISSION_DENIED: the file.
  static absl::StatusOr<ApiKeys> ReadFile(const std::string& path);

  // Whether an Authorization header, "Bearer KEY", names one of the keys.
  bool Allows(absl::string_view authorization) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  static Digest DigestOf(absl::string_view key);

  std::vector<Digest> digests_;
};

}  // namespace odmoe
