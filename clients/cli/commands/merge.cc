// odmoe merge DIR -o OUT.gguf
#include "converter/merge/merge.h"

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/commands/conversion_progress.h"
#include "clients/cli/console/progress.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

struct MergeArguments {
  MergeOptions merge;
  bool no_verify = false;
  bool force = false;
  OutputOptions output;
};

// What is replaced stays until the new file is whole.
absl::Status CheckDestination(const MergeArguments& options) {
  const std::string& path = options.merge.destination;
  if (!absl::EndsWith(path, ".gguf")) {
    return UsageError(absl::StrCat("merge makes a GGUF file, and ", path,
                                   " does not end in .gguf"));
  }
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is a folder"));
  }
  if (std::filesystem::exists(status) && !options.force) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, " exists; give another -o, or --force to replace it"));
  }
  return absl::OkStatus();
}

absl::Status Run(const MergeArguments& options, Console& console) {
  ODMOE_RETURN_IF_ERROR(CheckDestination(options));
  const SignalScope signals;
  ProgressDisplay display(console, options.output.quiet);
  MergeOptions merge = options.merge;
  merge.verify = !options.no_verify;
  const absl::Time start = absl::Now();
  const auto merged =
      MergeModel(merge, &signals.cancellation(), [&](const ConvertProgress& progress) {
        display.Update(ToProgressState(progress));
      });
  display.Finish();
  ODMOE_RETURN_IF_ERROR(merged.status());
  const absl::Duration time = absl::Now() - start;
  if (options.output.json) {
    Json json;
    json["destination"] = merge.destination;
    json["bytes"] = merged->bytes;
    json["digest"] = merged->digest;
    json["seconds"] = absl::ToDoubleSeconds(time);
    console.OutLine(DumpJson(json));
  } else if (!options.output.quiet) {
    console.ErrLine(absl::StrFormat("%s: %s in %s", merge.destination, FormatBytes(merged->bytes),
                                    ShortDuration(time)));
  }
  return absl::OkStatus();
}

}  // namespace

void AddMergeCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<MergeArguments>();
  CLI::App* command = app.add_subcommand(
      "merge", "Put a model directory together again as the GGUF file it was split from");
  command->add_option("directory", options->merge.directory, "Model directory")
      ->required()
      ->type_name("DIR");
  command->add_option("-o,--output", options->merge.destination, "The GGUF file to make")
      ->required()
      ->type_name("OUT.gguf");
  command->add_flag("--no-verify", options->no_verify,
                    "Do not compare the directory's hashes before, which reads it once more");
  command
      ->add_option("--concurrency", options->merge.concurrency, "Threads; 0: one a core")
      ->check(CLI::Range(0, 64))
      ->type_name("N");
  command->add_flag("--force", options->force, "Replace an existing file");
  command->add_flag("--restart", options->merge.restart,
                    "Begin anew instead of going on with an interrupted merge");
  AddOutputOptions(*command, options->output);
  command->footer(
      "The file is the same as before the split, byte for byte. Shards of a split GGUF model\n"
      "become one file. What was interrupted goes on with the same command.\n"
      "Example:\n"
      "  odmoe merge kimi -o kimi.gguf");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
