// odmoe upload PATH, odmoe download PATH
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "clients/cli/transfer/transfer.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

struct TransferArguments {
  std::string path;
  std::string destination;
  std::string endpoint;
  OutputOptions output;
};

absl::Status CheckEndpoint(const TransferArguments& options) {
  if (!options.endpoint.empty()) return absl::OkStatus();
  return UsageError("give the conversion service with --endpoint, or ODMOE_ENDPOINT");
}

void Report(const TransferResult& result, const std::string& id, absl::Duration time,
            const OutputOptions& output, Console& console) {
  if (output.json) {
    Json json;
    json["path"] = result.path;
    if (!id.empty()) json["upload_id"] = id;
    json["bytes"] = result.bytes;
    json["files"] = result.files;
    json["seconds"] = absl::ToDoubleSeconds(time);
    console.OutLine(DumpJson(json));
    return;
  }
  if (!id.empty()) console.OutLine(result.path);  // what a job is to be told
  if (!output.quiet) {
    console.ErrLine(absl::StrFormat("%s: %s in %s", result.path, FormatBytes(result.bytes),
                                    ShortDuration(time)));
  }
}

absl::Status RunUpload(const TransferArguments& options, Console& console) {
  ODMOE_RETURN_IF_ERROR(CheckEndpoint(options));
  const SignalScope signals;
  const absl::Time start = absl::Now();
  ODMOE_ASSIGN_OR_RETURN(const auto remote, ConnectRemoteFiles(options.endpoint));
  ODMOE_ASSIGN_OR_RETURN(const std::string id, UploadIdOf({options.path}));
  ODMOE_ASSIGN_OR_RETURN(
      const TransferResult result,
      UploadTree(*remote, id, "source", options.path,
                 {console, options.output.quiet, &signals.cancellation()}));
  Report(result, id, absl::Now() - start, options.output, console);
  return absl::OkStatus();
}

absl::Status RunDownload(const TransferArguments& options, Console& console) {
  ODMOE_RETURN_IF_ERROR(CheckEndpoint(options));
  const SignalScope signals;
  const absl::Time start = absl::Now();
  ODMOE_ASSIGN_OR_RETURN(const auto remote, ConnectRemoteFiles(options.endpoint));
  ODMOE_ASSIGN_OR_RETURN(
      const TransferResult result,
      DownloadTree(*remote, options.path, options.destination,
                   {console, options.output.quiet, &signals.cancellation()}));
  Report(result, "", absl::Now() - start, options.output, console);
  return absl::OkStatus();
}

}  // namespace

void AddUploadCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<TransferArguments>();
  CLI::App* command = app.add_subcommand(
      "upload", "Send a checkpoint or model to a conversion service's host");
  command->add_option("path", options->path, "A file, or a folder with all below it")
      ->required()
      ->type_name("PATH");
  AddEndpointOption(*command, options->endpoint, "The conversion service; it has --spool");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Prints where it lies on the service's host, for jobs to read. Interrupted, the same "
      "command\n"
      "goes on where it was. Of a folder, what begins with \".\" is left out.\n"
      "Examples:\n"
      "  odmoe upload Kimi-K2/ --endpoint 10.0.0.5:9003\n"
      "  odmoe convert Kimi-K2/ -o kimi.gguf --endpoint 10.0.0.5:9003 --transfer\n"
      "      upload, convert and download in one");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return RunUpload(*options, console); };
  });
}

void AddDownloadCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<TransferArguments>();
  CLI::App* command =
      app.add_subcommand("download", "Fetch a file or folder from a conversion service's host");
  command->add_option("path", options->path, "A path below the service's roots or its spool")
      ->required()
      ->type_name("PATH");
  command->add_option("-o,--output", options->destination, "Where to put it")
      ->required()
      ->type_name("DST");
  AddEndpointOption(*command, options->endpoint, "The conversion service");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Interrupted, the same command goes on where it was. Files that are here already are "
      "compared\n"
      "by their hash, and fetched again where they differ.\n"
      "Example:\n"
      "  odmoe download /models/kimi -o kimi --endpoint 10.0.0.5:9003");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return RunDownload(*options, console); };
  });
}

}  // namespace odmoe
