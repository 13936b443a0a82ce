#include "clients/cli/cli.h"

#include <algorithm>
#include <exception>
#include <memory>

#include "CLI/CLI.hpp"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/help_format.h"
#include "clients/cli/version.h"
#include "services/core/formats/nearest_name.h"

namespace odmoe {
namespace {

constexpr char kDescription[] =
    "Runs Mixture-of-Experts language models larger than memory.\n"
    "Works in this process, or against running services with --endpoint.";

constexpr char kFooter[] =
    "Examples:\n"
    "  odmoe convert Kimi-K2/ -o kimi              a Hugging Face directory to a model directory\n"
    "  odmoe generate kimi -p 'Once upon' -n 64 --expert-budget 25%\n"
    "  odmoe serve kimi                            OpenAI's HTTP API on 127.0.0.1:8080\n"
    "  odmoe COMMAND --help                        flags and examples of one command\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n"
    "Errors are one line on standard error; with --json also {\"error\":{\"code\",\"message\"}} "
    "on\n"
    "standard output.";

void AddCommands(CLI::App& app, Invocation& invocation) {
  AddConvertCommand(app, invocation);
  AddQuantizeCommand(app, invocation);
  AddInspectCommand(app, invocation);
  AddVerifyCommand(app, invocation);
  AddMergeCommand(app, invocation);
  AddBitnetCommand(app, invocation);
  AddToyCommand(app, invocation);
  AddTokenizeCommand(app, invocation);
  AddScoreCommand(app, invocation);
  AddEvaluateCommand(app, invocation);
  AddImatrixCommand(app, invocation);
  AddGenerateCommand(app, invocation);
  AddServeCommand(app, invocation);
  AddLoadCommand(app, invocation);
  AddUnloadCommand(app, invocation);
  AddResizeCommand(app, invocation);
  AddJobsCommand(app, invocation);
  AddUploadCommand(app, invocation);
  AddDownloadCommand(app, invocation);
  AddReplayCommand(app, invocation);
  AddStatsCommand(app, invocation);
}

// The command line may be broken before its flags are known, and a program that wants JSON still
// wants the error as JSON.
bool AsksForJson(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--") return false;
    if (argument == "--json") return true;
  }
  return false;
}

// What the library says of a refused connection is true and no help.
absl::Status WithAdvice(const absl::Status& status) {
  if (!absl::IsUnavailable(status) || !absl::StrContains(status.message(), "failed to connect")) {
    return status;
  }
  return absl::UnavailableError(absl::StrCat(status.message(), "; is the service running there?"));
}

int Report(const absl::Status& outcome, bool json, Console& console) {
  const absl::Status status = WithAdvice(outcome);
  if (!status.ok()) {
    if (json && !IsAlreadyWritten(status)) console.OutLine(ErrorDocument(status));
    console.ErrLine(ErrorLine(status));
  }
  return ExitCode(status);
}

// The library's words, but for a command there is none of, and where to read on.
std::string WhatIsWrong(const CLI::App& app, const std::vector<std::string>& arguments,
                        const CLI::ParseError& error) {
  const CLI::App* command = &app;
  std::string path = "odmoe";
  size_t depth = 0;
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    path += " " + command->get_name();
    ++depth;
  }
  std::vector<std::string> names;
  for (const CLI::App* known : command->get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(known->get_name());
  }
  std::string what = error.what();
  if (!names.empty() && depth < arguments.size() && !absl::StartsWith(arguments[depth], "-")) {
    const std::string nearest = NearestName(arguments[depth], names);
    what = absl::StrCat("no command '", arguments[depth], "'");
    if (EditDistance(arguments[depth], nearest) <= 3) {
      absl::StrAppend(&what, "; did you mean '", nearest, "'");
    }
  }
  return absl::StrCat(what, "; see ", path, " --help");
}

// Help and version end the parse too, by exceptions that are successes.
absl::Status Parse(CLI::App& app, const std::vector<std::string>& arguments, Console& console,
                   bool* done) {
  try {
    // The library takes them from the back.
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(std::move(reversed));
    return absl::OkStatus();
  } catch (const CLI::CallForHelp&) {
    console.Out(app.help());
  } catch (const CLI::CallForAllHelp&) {
    console.Out(app.help("", CLI::AppFormatMode::All));
  } catch (const CLI::CallForVersion& version) {
    console.OutLine(version.what());
  } catch (const CLI::ParseError& error) {
    return UsageError(WhatIsWrong(app, arguments, error));
  }
  *done = true;
  return absl::OkStatus();
}

}  // namespace

int RunCli(const std::vector<std::string>& arguments, Console& console) {
  const bool json = AsksForJson(arguments);
  CLI::App app(kDescription, "odmoe");
  app.footer(kFooter);
  app.formatter(std::make_shared<HelpFormat>());
  app.set_version_flag("--version", absl::StrCat("odmoe ", kVersion));
  app.require_subcommand(1);
  app.option_defaults()->always_capture_default();
  Invocation invocation;
  AddCommands(app, invocation);

  bool done = false;
  absl::Status status = Parse(app, arguments, console, &done);
  if (!status.ok() || done) return Report(status, json, console);
  // What a library throws in spite of its promises must not end in a crash dump.
  try {
    status = invocation.run(console);
  } catch (const std::exception& error) {
    status = absl::InternalError(absl::StrCat("unexpected exception: ", error.what()));
  }
  if (status.ok()) status = console.CheckOut();
  return Report(status, json, console);
}

}  // namespace odmoe
