#include "clients/cli/commands/command.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "clients/cli/exit_code.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/io/file.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxTextBytes = 256 * kMiB;

}  // namespace

void AddOutputOptions(CLI::App& command, OutputOptions& options) {
  command.add_flag("--json", options.json, "The result as JSON on standard output");
  command.add_flag("-q,--quiet", options.quiet, "No progress and no summary");
}

CLI::Option* AddEndpointOption(CLI::App& command, std::string& endpoint, const std::string& help) {
  return command.add_option("--endpoint", endpoint, help)
      ->type_name("HOST:PORT|unix:PATH")
      ->envname("ODMOE_ENDPOINT");
}

absl::Status WriteTextFile(const std::string& path, absl::string_view text) {
  ODMOE_ASSIGN_OR_RETURN(auto file, AtomicFile::Create(PosixFileSystem(), path));
  ODMOE_RETURN_IF_ERROR(file->file().Append(text));
  return file->Commit();
}

std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

absl::StatusOr<std::string> ReadText(const TextOptions& options, Console& console) {
  if (options.has_text && !options.file.empty()) {
    return UsageError("give the text either on the command line or in a file, not both");
  }
  if (options.has_text) return options.text;
  if (options.file.empty() || options.file == "-") return console.ReadIn(kMaxTextBytes);
  // A plain stream and not our own File: a pipe, as in -f <(...), is as good as a file here.
  std::ifstream file(options.file, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", options.file));
  Console reader({.in = &file});
  auto text = reader.ReadIn(kMaxTextBytes);
  if (!text.ok() || file.bad()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.file, " cannot be read as text of at most ", FormatBytes(kMaxTextBytes)));
  }
  return text;
}

}  // namespace odmoe
