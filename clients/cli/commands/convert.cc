// odmoe convert SRC -o DST
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/commands/conversion_progress.h"
#include "clients/cli/commands/destination.h"
#include "clients/cli/console/progress.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/jobs/convert_flags.h"
#include "clients/cli/jobs/job_view.h"
#include "clients/cli/json_output.h"
#include "clients/cli/transfer/convert_remotely.h"
#include "clients/cpp/remote_job_queue.h"
#include "converter/convert.h"
#include "converter/describe_plan.h"
#include "services/conversion/jobs/convert_options.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

struct ConvertArguments {
  ConvertSpec spec;
  bool dry_run = false;
  std::string endpoint;
  bool transfer = false;
  bool force = false;
  OutputOptions output;
};

// What a conversion came to.
struct Result {
  std::string destination;
  uint64_t bytes = 0;  // of the last step's output
  absl::Duration time;
};

absl::StatusOr<Result> ConvertHere(const ConvertArguments& options,
                                   const Cancellation& cancellation, Console& console) {
  // Before the plan, which may take a while, where that is enough to know it.
  if (!HasUnfinishedConversion(PosixFileSystem(), options.spec.destination)) {
    ODMOE_RETURN_IF_ERROR(CheckNotTaken(options.spec.destination, options.force));
  }
  ConvertOptions convert = ToConvertOptions(options.spec);
  convert.restart = options.spec.restart;
  ODMOE_ASSIGN_OR_RETURN(const ConvertPlan plan, PlanConversion(convert));
  ODMOE_RETURN_IF_ERROR(ClearOutputs(plan.outputs, plan.options.destination, options.force));
  if (!plan.note.empty() && !options.output.quiet) {
    console.ErrLine(absl::StrCat("note: ", plan.note));
  }
  if (plan.resumed_bytes > 0 && !options.output.quiet) {
    console.ErrLine(absl::StrCat("resuming: ", FormatBytes(plan.resumed_bytes), " of ",
                                 FormatBytes(plan.step_bytes[0]), " done"));
  }
  ProgressDisplay display(console, options.output.quiet);
  const absl::Time start = absl::Now();
  const absl::Status converted = RunConversion(
      plan, &cancellation,
      [&](const ConvertProgress& progress) { display.Update(ToProgressState(progress)); });
  display.Finish();
  if (!converted.ok() && !options.output.quiet &&
      HasUnfinishedConversion(PosixFileSystem(), options.spec.destination)) {
    console.ErrLine(
        "what is done stays: the same command goes on from there, with --restart it begins anew");
  }
  ODMOE_RETURN_IF_ERROR(converted);
  const uint64_t bytes = plan.step_bytes.empty() ? 0 : plan.step_bytes.back();
  return Result{options.spec.destination, bytes, absl::Now() - start};
}

absl::StatusOr<Result> ConvertAsJob(const ConvertArguments& options,
                                    const Cancellation& cancellation, Console& console) {
  if (options.force) {
    return UsageError(
        "--force works in this process only; leave out --endpoint (or unset ODMOE_ENDPOINT)");
  }
  ODMOE_ASSIGN_OR_RETURN(const auto queue, ConnectJobQueue(options.endpoint));
  JobSpec spec;
  spec.steps = {WithAbsolutePaths(options.spec)};
  ODMOE_ASSIGN_OR_RETURN(const Job job,
                         RunJob(*queue, spec, console, options.output.quiet, cancellation));
  return Result{JobTarget(job), job.steps.back().result.bytes, job.finished - job.started};
}

absl::StatusOr<Result> ConvertElsewhere(const ConvertArguments& options,
                                        const Cancellation& cancellation, Console& console) {
  if (options.endpoint.empty() || options.force || options.spec.restart) {
    return UsageError("--transfer needs --endpoint, and goes with neither --force nor --restart");
  }
  const absl::Time start = absl::Now();
  ODMOE_ASSIGN_OR_RETURN(const TransferResult result,
                         ConvertRemotely(options.endpoint, options.spec,
                                         {console, options.output.quiet, &cancellation}));
  return Result{result.path, result.bytes, absl::Now() - start};
}

// Says what would be done, and does nothing.
absl::Status DryRun(const ConvertArguments& options, Console& console) {
  if (!options.endpoint.empty()) {
    return UsageError(
        "--dry-run works in this process only; leave out --endpoint (or unset ODMOE_ENDPOINT)");
  }
  ODMOE_ASSIGN_OR_RETURN(const ConvertPlan plan, PlanConversion(ToConvertOptions(options.spec)));
  const PlanDescription description = DescribePlan(plan);
  if (options.output.json) {
    console.OutLine(PlanJson(plan, description));
  } else {
    console.Out(PlanText(plan, description));
  }
  return absl::OkStatus();
}

absl::Status Run(const ConvertArguments& options, Console& console) {
  if (options.dry_run) return DryRun(options, console);
  const SignalScope signals;
  const Cancellation& cancellation = signals.cancellation();
  auto result = options.transfer           ? ConvertElsewhere(options, cancellation, console)
                : options.endpoint.empty() ? ConvertHere(options, cancellation, console)
                                           : ConvertAsJob(options, cancellation, console);
  if (!result.ok()) return result.status();
  if (options.output.json) {
    Json json;
    json["destination"] = result->destination;
    json["bytes"] = result->bytes;
    json["seconds"] = absl::ToDoubleSeconds(result->time);
    console.OutLine(DumpJson(json));
  } else if (!options.output.quiet) {
    console.ErrLine(absl::StrFormat("%s: %s in %s", result->destination, FormatBytes(result->bytes),
                                    ShortDuration(result->time)));
  }
  return absl::OkStatus();
}

}  // namespace

void AddConvertCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<ConvertArguments>();
  CLI::App* command = app.add_subcommand(
      "convert", "A Hugging Face directory or GGUF file to a GGUF file or model directory");
  command->add_option("source", options->spec.source, "Hugging Face directory or GGUF file")
      ->required()
      ->type_name("SRC");
  command
      ->add_option("-o,--output", options->spec.destination,
                   "What to make: a GGUF file where it ends in .gguf, else a model directory")
      ->required()
      ->type_name("DST");
  AddConvertFlags(*command, options->spec);
  command->add_flag("--dry-run", options->dry_run,
                    "Print the tensors, sizes, disk, memory and time it would take; write nothing");
  command->add_flag("--force", options->force, "Replace an existing destination");
  AddEndpointOption(*command, options->endpoint,
                    "Submit a job to this conversion service and watch it to its end");
  command->add_flag("--transfer", options->transfer,
                    "The files are here, not there: upload them, convert, download the result");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Ctrl-C stops and removes what was written so far; a second one ends at once. What a\n"
      "conversion that was killed or failed has written stays: the same command goes on from "
      "there.\n"
      "Examples:\n"
      "  odmoe convert Kimi-K2/ -o kimi                      in one step\n"
      "  odmoe convert Kimi-K2/ -o kimi.gguf --outtype q8_0  in two\n"
      "  odmoe convert kimi.gguf -o kimi\n"
      "  odmoe convert /models/Kimi-K2 -o /models/kimi --endpoint 127.0.0.1:9003\n"
      "  odmoe convert Kimi-K2/ -o kimi.gguf --endpoint 10.0.0.5:9003 --transfer");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
