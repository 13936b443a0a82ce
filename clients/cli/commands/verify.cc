// odmoe verify PATH
#include "converter/verify/verify.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
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

struct VerifyArguments {
  std::string path;
  int concurrency = 0;
  OutputOptions output;
};

std::string Summary(const VerifyArguments& options, const VerifyReport& report) {
  return absl::StrFormat("%s: %s, %d experts, %d tensors, %s read, %d hashes compared",
                         options.path, report.kind, report.expert_count, report.tensor_count,
                         FormatBytes(report.checked_bytes), report.hashed_count);
}

absl::Status Outcome(const VerifyArguments& options, const VerifyReport& report) {
  if (report.intact()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(Summary(options, report), ": ", report.damage_count,
                                          " damaged, first ", report.damages[0].item));
}

Json ToJson(const absl::Status& status) {
  return Json{{"code", absl::StatusCodeToString(status.code())},
              {"message", std::string(status.message())}};
}

// One document, whatever comes of it: the report tells more than an error alone.
std::string ReportJson(const VerifyArguments& options, const VerifyReport& report) {
  Json json;
  json["path"] = options.path;
  json["kind"] = report.kind;
  json["intact"] = report.intact();
  json["experts"] = report.expert_count;
  json["tensors"] = report.tensor_count;
  json["hashed"] = report.hashed_count;
  json["bytes"] = report.checked_bytes;
  json["damage_count"] = report.damage_count;
  json["damages"] = Json::array();
  for (const Damage& damage : report.damages) {
    Json entry = ToJson(damage.status);
    entry["item"] = damage.item;
    json["damages"].push_back(std::move(entry));
  }
  if (!report.intact()) json["error"] = ToJson(Outcome(options, report));
  return DumpJson(json);
}

absl::Status Run(const VerifyArguments& options, Console& console) {
  const SignalScope signals;
  ProgressDisplay display(console, options.output.quiet);
  const auto report = VerifyModel(
      {.path = options.path, .concurrency = options.concurrency}, &signals.cancellation(),
      [&](const ConvertProgress& progress) { display.Update(ToProgressState(progress)); });
  display.Finish();
  ODMOE_RETURN_IF_ERROR(report.status());
  if (options.output.json) {
    console.OutLine(ReportJson(options, *report));
  } else {
    for (const Damage& damage : report->damages) {
      console.OutLine(absl::StrCat(damage.item, ": ", damage.status.message()));
    }
  }
  if (!report->intact()) return AlreadyWritten(Outcome(options, *report));
  if (!options.output.quiet) console.ErrLine(absl::StrCat(Summary(options, *report), ": intact"));
  return absl::OkStatus();
}

}  // namespace

void AddVerifyCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<VerifyArguments>();
  CLI::App* command =
      app.add_subcommand("verify", "Read a model whole and say what is damaged in it");
  command
      ->add_option("path", options->path,
                   "Model directory, GGUF file (any shard), safetensors file or Hugging Face "
                   "directory")
      ->required()
      ->type_name("PATH");
  command
      ->add_option("--concurrency", options->concurrency,
                   "Threads that read and hash; 0: one a core")
      ->check(CLI::Range(0, 64))
      ->type_name("N");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Compares every recorded hash, the headers with each other, and looks for weights and\n"
      "scales that are NaN or infinite. One line on standard output for each damage; exit code 1 "
      "where "
      "there is any.\n"
      "Examples:\n"
      "  odmoe verify kimi\n"
      "  odmoe verify kimi --json | jq -r '.damages[].item'");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
