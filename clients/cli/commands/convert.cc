// odmoe convert SRC -o DST
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/commands/conversion_progress.h"
#include "clients/cli/console/progress.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/jobs/job_view.h"
#include "clients/cli/json_output.h"
#include "clients/cpp/remote_job_queue.h"
#include "converter/convert.h"
#include "converter/describe_plan.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string source;
  std::string destination;
  std::string outtype = "auto";
  std::string pre_tokenizer;
  bool vocab_only = false;
  int64_t pad_vocab = 0;
  std::string split_max_size;
  int concurrency = 0;
  bool restart = false;
  bool dry_run = false;
  std::string endpoint;
  bool force = false;
  OutputOptions output;
};

// What a conversion came to.
struct Result {
  std::string destination;
  uint64_t bytes = 0;  // of the last step's output
  absl::Duration time;
};

// --force replaces what a conversion makes, and nothing else: a mistyped -o must not empty a folder.
absl::Status RemoveDestination(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error) && !fs::is_empty(path, error) &&
      !fs::exists(fs::path(path) / "base_model", error) &&
      !fs::exists(fs::path(path) / "experts", error)) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " is a folder with other things in it, which --force does not remove"));
  }
  fs::remove_all(path, error);
  if (error) {
    return absl::PermissionDeniedError(absl::StrCat("cannot remove ", path, ": ", error.message()));
  }
  return absl::OkStatus();
}

// Whether there is something that a conversion would replace: not an empty folder, and not what an
// interrupted conversion left to go on with.
bool IsTaken(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return false;
  return !fs::is_directory(path, error) || !fs::is_empty(path, error);
}

absl::StatusOr<ConvertOptions> ToConvertOptions(const Options& options) {
  ConvertOptions result{.source = options.source,
                        .destination = options.destination,
                        .outtype = options.outtype,
                        .pre_tokenizer = options.pre_tokenizer,
                        .vocab_only = options.vocab_only,
                        .pad_vocab = options.pad_vocab};
  if (!options.split_max_size.empty()) {
    ODMOE_ASSIGN_OR_RETURN(result.split_max_bytes, ParseSplitSize(options.split_max_size));
  }
  result.concurrency = options.concurrency;
  result.restart = options.restart;
  return result;
}

// Makes room for the plan's outputs. Only once there is a plan: one that cannot work must not cost
// the user what is there.
absl::Status ClearOutputs(const ConvertPlan& plan, bool force) {
  if (HasUnfinishedConversion(PosixFileSystem(), plan.options.destination)) return absl::OkStatus();
  for (const std::string& path : plan.outputs) {
    if (!IsTaken(path)) continue;
    if (!force) {
      return absl::AlreadyExistsError(
          absl::StrCat(path, " exists; give another -o, or --force to replace it"));
    }
    ODMOE_RETURN_IF_ERROR(RemoveDestination(path));
  }
  return absl::OkStatus();
}

absl::StatusOr<Result> ConvertHere(const Options& options, const Cancellation& cancellation,
                                   Console& console) {
  // Before the plan, which may take a while, where that is enough to know it.
  if (!options.force && IsTaken(options.destination) &&
      !HasUnfinishedConversion(PosixFileSystem(), options.destination)) {
    return absl::AlreadyExistsError(absl::StrCat(
        options.destination, " exists; give another -o, or --force to replace it"));
  }
  ODMOE_ASSIGN_OR_RETURN(const ConvertOptions convert, ToConvertOptions(options));
  ODMOE_ASSIGN_OR_RETURN(const ConvertPlan plan, PlanConversion(convert));
  ODMOE_RETURN_IF_ERROR(ClearOutputs(plan, options.force));
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
      HasUnfinishedConversion(PosixFileSystem(), options.destination)) {
    console.ErrLine(
        "what is done stays: the same command goes on from there, with --restart it begins anew");
  }
  ODMOE_RETURN_IF_ERROR(converted);
  const uint64_t bytes = plan.step_bytes.empty() ? 0 : plan.step_bytes.back();
  return Result{options.destination, bytes, absl::Now() - start};
}

absl::StatusOr<Result> ConvertAsJob(const Options& options, const Cancellation& cancellation,
                                    Console& console) {
  if (options.force || options.restart || options.concurrency != 0 ||
      !options.split_max_size.empty() || !options.pre_tokenizer.empty() || options.vocab_only ||
      options.pad_vocab != 0) {
    return UsageError(
        "--force, --restart, --concurrency, --split-max-size, --pre-tokenizer, --vocab-only and "
        "--pad-vocab work in this process only; leave out --endpoint (or unset ODMOE_ENDPOINT)");
  }
  ODMOE_ASSIGN_OR_RETURN(const auto queue, ConnectJobQueue(options.endpoint));
  ODMOE_ASSIGN_OR_RETURN(const Job submitted,
                         queue->Submit({.source = AbsolutePath(options.source),
                                        .destination = AbsolutePath(options.destination),
                                        .outtype = options.outtype},
                                       ""));
  if (!options.output.quiet) console.ErrLine(absl::StrCat("job ", submitted.id));
  auto job = ShowJob(*queue, submitted.id, console, options.output.quiet, cancellation);
  if (cancellation.cancelled()) {
    const absl::Status cancelled = queue->Cancel(submitted.id).status();
    // It may have ended meanwhile, and that is no failure to cancel.
    if (!cancelled.ok() && !absl::IsFailedPrecondition(cancelled)) return cancelled;
    return absl::CancelledError(absl::StrCat("interrupted; job ", submitted.id, " is cancelled"));
  }
  ODMOE_RETURN_IF_ERROR(job.status());
  ODMOE_RETURN_IF_ERROR(JobOutcome(*job));
  return Result{job->spec.destination, job->progress.total_bytes, job->finished - job->started};
}

// Says what would be done, and does nothing.
absl::Status DryRun(const Options& options, Console& console) {
  if (!options.endpoint.empty()) {
    return UsageError(
        "--dry-run works in this process only; leave out --endpoint (or unset ODMOE_ENDPOINT)");
  }
  ODMOE_ASSIGN_OR_RETURN(const ConvertOptions convert, ToConvertOptions(options));
  ODMOE_ASSIGN_OR_RETURN(const ConvertPlan plan, PlanConversion(convert));
  const PlanDescription description = DescribePlan(plan);
  if (options.output.json) {
    console.OutLine(PlanJson(plan, description));
  } else {
    console.Out(PlanText(plan, description));
  }
  return absl::OkStatus();
}

absl::Status Run(const Options& options, Console& console) {
  if (options.dry_run) return DryRun(options, console);
  const SignalScope signals;
  auto result = options.endpoint.empty()
                    ? ConvertHere(options, signals.cancellation(), console)
                    : ConvertAsJob(options, signals.cancellation(), console);
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
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "convert", "A Hugging Face directory or GGUF file to a GGUF file or model directory");
  command->add_option("source", options->source, "Hugging Face directory or GGUF file")
      ->required()
      ->type_name("SRC");
  command
      ->add_option("-o,--output", options->destination,
                   "What to make: a GGUF file where it ends in .gguf, else a model directory")
      ->required()
      ->type_name("DST");
  command
      ->add_option("--outtype", options->outtype,
                   "Number format of the weights; auto keeps the checkpoint's. A GGUF source keeps "
                   "its bytes")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"auto", "f32", "f16", "bf16", "q8_0"}));
  command
      ->add_option("--pre-tokenizer", options->pre_tokenizer,
                   "GGUF's name of how the checkpoint splits words, where it is not recognized")
      ->type_name("NAME");
  command->add_flag("--vocab-only", options->vocab_only,
                    "Write the tokenizer and the other keys, but no weights, which need not be there");
  command
      ->add_option("--pad-vocab", options->pad_vocab,
                   "Grow the vocabulary, embedding and head to the next multiple, with rows of zeros")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  command
      ->add_option("--split-max-size", options->split_max_size,
                   "Write a GGUF file as shards of at most this size, NAME-00001-of-0000N.gguf: a "
                   "number of bytes, or with K, M or G (powers of 1000)")
      ->type_name("SIZE");
  command
      ->add_option("--concurrency", options->concurrency,
                   "Tensors or experts made at once; 0: one a core. The output is the same")
      ->type_name("N")
      ->check(CLI::Range(0, 64));
  command->add_flag("--dry-run", options->dry_run,
                    "Print the tensors, sizes, disk, memory and time it would take; write nothing");
  command->add_flag("--force", options->force, "Replace an existing destination");
  command->add_flag("--restart", options->restart,
                    "Begin anew where an interrupted conversion has left work to go on with");
  AddEndpointOption(*command, options->endpoint,
                    "Submit a job to this conversion service and watch it to its end");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Ctrl-C stops and removes what was written so far; a second one ends at once. What a\n"
      "conversion that was killed or failed has written stays: the same command goes on from there.\n"
      "Examples:\n"
      "  odmoe convert Kimi-K2/ -o kimi                      in one step\n"
      "  odmoe convert Kimi-K2/ -o kimi.gguf --outtype q8_0  in two\n"
      "  odmoe convert kimi.gguf -o kimi\n"
      "  odmoe convert /models/Kimi-K2 -o /models/kimi --endpoint 127.0.0.1:9003");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
