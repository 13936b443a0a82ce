// JSON from outside, read with its faults as statuses: nothing here throws or aborts.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/io/file.h"

namespace odmoe {

// Parses a whole document. `source` names it in messages. Duplicate keys in an object and more than
// 64 levels are refused too. INVALID_ARGUMENT: not JSON, with the byte offset.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, const std::string& source);

// A file of at most `limit_bytes`.
absl::StatusOr<nlohmann::json> ReadJsonFile(FileSystem& fs, const std::string& path,
                                            uint64_t limit_bytes);

// `text` as a JSON string with its quotes. INVALID_ARGUMENT: not UTF-8.
absl::StatusOr<std::string> JsonQuote(absl::string_view text);

// An object and where it stands, for messages; refers to both. Members are read with their type.
// DATA_LOSS: missing, or of another type or range than asked for.
class JsonObject {
 public:
  // DATA_LOSS: `value` is not an object.
  static absl::StatusOr<JsonObject> From(const nlohmann::json& value, std::string where);

  // There, and not null.
  bool Has(const char* key) const;
  absl::StatusOr<const nlohmann::json*> Member(const char* key) const;
  absl::StatusOr<JsonObject> Object(const char* key) const;
  absl::StatusOr<const nlohmann::json*> Array(const char* key) const;
  absl::StatusOr<std::string> String(const char* key) const;
  absl::StatusOr<int64_t> Int(const char* key, int64_t least, int64_t most) const;
  absl::StatusOr<uint64_t> U64(const char* key) const;
  absl::StatusOr<double> Double(const char* key) const;  // an integer too
  absl::StatusOr<bool> Bool(const char* key) const;

  const nlohmann::json& value() const { return *value_; }
  const std::string& where() const { return where_; }
  absl::Status Wrong(const char* key, absl::string_view expected) const;

 private:
  JsonObject(const nlohmann::json& value, std::string where)
      : value_(&value), where_(std::move(where)) {}
  const nlohmann::json* value_;
  std::string where_;
};

}  // namespace odmoe
