// The members of a client's JSON object, read within bounds.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace odmoe {

// Reads the members of a JSON object, each once, and keeps the first error, so that a caller reads
// them all and asks once. A member that is absent or null leaves its default. Not thread-safe; the
// object outlives it.
class JsonMembers {
 public:
  // Error: not an object.
  explicit JsonMembers(const nlohmann::json& object);

  std::string String(const char* name, std::string value = "");
  bool Bool(const char* name, bool value);
  int64_t Integer(const char* name, int64_t value, int64_t minimum, int64_t maximum);
  // A double in [minimum, maximum].
  double Number(const char* name, double value, double minimum, double maximum);
  // The member itself; null where it is absent or null.
  const nlohmann::json* Any(const char* name);
  bool Has(const char* name) { return Any(name) != nullptr; }

  // Keeps the first.
  void Fail(absl::Status error) { status_.Update(std::move(error)); }
  const absl::Status& status() const { return status_; }

 private:
  void WrongType(const char* name, absl::string_view expected, const nlohmann::json& got);

  const nlohmann::json& object_;
  absl::Status status_;
};

}  // namespace odmoe
