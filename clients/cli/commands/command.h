// What every command shares: how it is registered, its output flags, where its text comes from.
#pragma once

#include <functional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cli/console/console.h"

namespace odmoe {

// The command chosen on the command line, once that has been parsed.
struct Invocation {
  std::function<absl::Status(Console&)> run;
};

struct OutputOptions {
  bool json = false;   // the result as one JSON document on standard output
  bool quiet = false;  // no progress, no summary
};

// --json and -q, --quiet.
void AddOutputOptions(CLI::App& command, OutputOptions& options);

// --endpoint, or ODMOE_ENDPOINT.
CLI::Option* AddEndpointOption(CLI::App& command, std::string& endpoint, const std::string& help);

// Text given on the command line, in a file, or on standard input. Taken byte for byte.
struct TextOptions {
  std::string text;
  bool has_text = false;
  std::string file;  // "-" or empty: standard input, unless has_text
};

// INVALID_ARGUMENT: both a text and a file, or more than 256 MiB. NOT_FOUND: no such file.
absl::StatusOr<std::string> ReadText(const TextOptions& options, Console& console);

// Writes a file that nobody sees before it is complete.
absl::Status WriteTextFile(const std::string& path, absl::string_view text);

// `path` as a service must be told it, which has no idea of our working directory.
std::string AbsolutePath(const std::string& path);

// A check for an option's value out of a parser that returns a StatusOr: the command line is wrong
// where the parser refuses.
template <typename Parser>
CLI::Validator CheckedBy(Parser parser) {
  return CLI::Validator(
      [parser](std::string& text) -> std::string {
        const auto parsed = parser(text);
        return parsed.ok() ? std::string() : std::string(parsed.status().message());
      },
      "");
}

}  // namespace odmoe
