#include "tests/support/temporary_directory.h"

#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

[[noreturn]] void Die(absl::string_view what, const std::string& path) {
  std::fprintf(stderr, "cannot %s %s\n", std::string(what).c_str(), path.c_str());
  abort();
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  path_ = (std::filesystem::temp_directory_path() / "odmoe-test-XXXXXX").string();
  if (mkdtemp(path_.data()) == nullptr) Die("create", path_);
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::string TemporaryDirectory::operator/(absl::string_view name) const {
  return absl::StrCat(path_, "/", name);
}

std::string ReadFileOrDie(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  if (!file) Die("read", path);
  return content.str();
}

void WriteFileOrDie(const std::string& path, absl::string_view content) {
  std::ofstream file(path, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (!file) Die("write", path);
}

}  // namespace odmoe
