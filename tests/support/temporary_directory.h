// A folder that lives as long as a test.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace odmoe {

// Empty at first, removed with all that is in it at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  // The path of something in it.
  std::string operator/(absl::string_view name) const;

 private:
  std::string path_;
};

// Whole files, for small test data. The test fails where they cannot be read or written.
std::string ReadFileOrDie(const std::string& path);
void WriteFileOrDie(const std::string& path, absl::string_view content);

}  // namespace odmoe
