// A regular expression over tensor names, from a user or a job and so not to be trusted.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

// Thread-safe.
class TensorPattern {
 public:
  // INVALID_ARGUMENT: not a regular expression (says where and why), or longer than 1,024 bytes.
  static absl::StatusOr<TensorPattern> Compile(absl::string_view expression);

  // Whether the expression matches anywhere in `name`, in any case of its letters.
  // INVALID_ARGUMENT: it takes more steps than any reasonable one.
  absl::StatusOr<bool> IsIn(absl::string_view name) const;

 private:
  struct Compiled;
  explicit TensorPattern(std::shared_ptr<const Compiled> compiled)
      : compiled_(std::move(compiled)) {}
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace odmoe
