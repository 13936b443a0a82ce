#include "services/gateway/openai/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/file.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxFileBytes = 1 << 20;

}  // namespace

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(DigestOf(key));
}

absl::StatusOr<ApiKeys> ApiKeys::ReadFile(const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text,
                         ReadWholeFile(PosixFileSystem(), path, kMaxFileBytes));
  std::vector<std::string> keys;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    if (line.find_first_of(" \t") != absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", line_number, ": a key with white space in it"));
    }
    keys.emplace_back(line);
  }
  if (keys.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no key in it"));
  return ApiKeys(keys);
}

bool ApiKeys::Allows(absl::string_view authorization) const {
  if (digests_.empty()) return true;
  constexpr absl::string_view kScheme = "bearer ";
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return false;
  const Digest given =
      DigestOf(absl::StripAsciiWhitespace(authorization.substr(kScheme.size())));
  bool allowed = false;
  // All of them, so that the time says nothing about which key came near.
  for (const Digest& digest : digests_) {
    allowed |= CRYPTO_memcmp(digest.data(), given.data(), given.size()) == 0;
  }
  return allowed;
}

ApiKeys::Digest ApiKeys::DigestOf(absl::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

}  // namespace odmoe
