// odmoe quantize SRC -o DST --type T
#include "converter/quantize/quantize.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/commands/destination.h"
#include "clients/cli/console/progress.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/jobs/job_view.h"
#include "clients/cli/jobs/quantize_summary.h"
#include "clients/cli/json_output.h"
#include "clients/cli/model/model_options.h"
#include "clients/cpp/remote_job_queue.h"
#include "converter/describe_plan.h"
#include "services/conversion/jobs/quantize_models.h"
#include "services/conversion/jobs/step_paths.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

struct QuantizeArguments {
  QuantizeSpec spec;
  std::string type;   // one, or
  std::string types;  // several
  bool restart = false;
  bool dry_run = false;
  bool force = false;
  std::string endpoint;
  OutputOptions output;
};

absl::Status SetTypes(QuantizeArguments& options) {
  if (options.type.empty() == options.types.empty()) {
    return UsageError("give --type for one model, or --types for a folder of them");
  }
  options.spec.batch = !options.types.empty();
  ODMOE_ASSIGN_OR_RETURN(options.spec.types,
                         ParseTypes(options.spec.batch ? options.types : options.type));
  if (!options.spec.batch && options.spec.types.size() != 1) {
    return UsageError("--type takes one; --types takes several");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<LanguageModel>> OpenToTry(const std::string& path) {
  ModelOptions model;
  model.model = path;
  ODMOE_ASSIGN_OR_RETURN(OpenedModel opened, OpenModel(model));
  return std::shared_ptr<LanguageModel>(std::move(opened.model));
}

ProgressState ToState(const JobProgress& progress) {
  ProgressState state;
  state.step = progress.phase;
  state.step_number = progress.phase_number;
  state.step_count = progress.phase_count;
  state.done_bytes = progress.done_bytes;
  state.total_bytes = progress.total_bytes;
  state.item = progress.item;
  return state;
}

absl::StatusOr<StepResult> QuantizeHere(const QuantizeArguments& options,
                                        const Cancellation& cancellation, Console& console) {
  const QuantizeSpec& spec = options.spec;
  QuantizeOptions quantize = ToQuantizeOptions(spec, nullptr);
  quantize.restart = options.restart;
  ODMOE_ASSIGN_OR_RETURN(const QuantizePlan plan, PlanQuantization(quantize));
  std::vector<std::string> outputs;
  int64_t fallbacks = 0;
  for (const QuantizedModel& model : plan.models) {
    outputs.insert(outputs.end(), model.files.begin(), model.files.end());
    fallbacks += model.fallback_count;
  }
  ODMOE_RETURN_IF_ERROR(ClearOutputs(outputs, spec.destination, options.force));
  if (plan.resumed_bytes > 0 && !options.output.quiet) {
    console.ErrLine(absl::StrCat("resuming: ", FormatBytes(plan.resumed_bytes), " of ",
                                 FormatBytes(plan.data_bytes()), " done"));
  }
  if (fallbacks > 0 && !options.output.quiet) {
    console.ErrLine(absl::StrCat(fallbacks,
                                 " tensors have rows that do not fit their format and get "
                                 "another; --dry-run shows which"));
  }
  ConversionFunctions functions{.plan = PlanConversion,
                                .run = RunConversion,
                                .open_model = OpenToTry,
                                .plan_quantization = [&](const QuantizeOptions&) { return plan; },
                                .run_quantization = RunQuantization};
  ProgressDisplay display(console, options.output.quiet);
  auto result = QuantizeModels(functions, nullptr, spec, cancellation,
                               [&](const JobProgress& now) { display.Update(ToState(now)); });
  display.Finish();
  if (!result.ok() && !options.output.quiet &&
      HasUnfinishedConversion(PosixFileSystem(), spec.destination)) {
    console.ErrLine(
        "what is done stays: the same command goes on from there, with --restart it begins anew");
  }
  return result;
}

absl::StatusOr<StepResult> QuantizeAsJob(const QuantizeArguments& options,
                                         const Cancellation& cancellation, Console& console) {
  if (options.force || options.restart) {
    return UsageError(
        "--force and --restart work in this process only; leave out --endpoint (or unset "
        "ODMOE_ENDPOINT)");
  }
  ODMOE_ASSIGN_OR_RETURN(const auto queue, ConnectJobQueue(options.endpoint));
  JobSpec spec;
  spec.steps = {options.spec};
  for (const StepPath& path : PathsOf(spec.steps[0])) *path.path = AbsolutePath(*path.path);
  ODMOE_ASSIGN_OR_RETURN(const Job job,
                         RunJob(*queue, spec, console, options.output.quiet, cancellation));
  return job.steps.back().result;
}

absl::Status DryRun(const QuantizeArguments& options, Console& console) {
  if (!options.endpoint.empty()) {
    return UsageError(
        "--dry-run works in this process only; leave out --endpoint (or unset ODMOE_ENDPOINT)");
  }
  ODMOE_ASSIGN_OR_RETURN(const QuantizePlan plan,
                         PlanQuantization(ToQuantizeOptions(options.spec, nullptr)));
  Json models = Json::array();
  for (const QuantizedModel& model : plan.models) {
    const ConvertPlan described = plan.Describe(model);
    const PlanDescription description = DescribePlan(described);
    if (options.output.json) {
      Json json = Json::parse(PlanJson(described, description), nullptr, false);
      json["type"] = model.type;
      json["bits_per_weight"] = model.bits_per_weight();
      json["fallback_count"] = model.fallback_count;
      models.push_back(std::move(json));
      continue;
    }
    console.Out(PlanText(described, description));
    console.OutLine(absl::StrFormat("%s: %.3f bits per weight, %d tensors fell back\n", model.type,
                                    model.bits_per_weight(), model.fallback_count));
  }
  if (options.output.json) console.OutLine(DumpJson(Json{{"models", std::move(models)}}));
  return absl::OkStatus();
}

absl::Status Run(QuantizeArguments options, Console& console) {
  ODMOE_RETURN_IF_ERROR(SetTypes(options));
  if (options.dry_run) return DryRun(options, console);
  const SignalScope signals;
  const Cancellation& cancellation = signals.cancellation();
  const absl::Time start = absl::Now();
  ODMOE_ASSIGN_OR_RETURN(const StepResult result,
                         options.endpoint.empty() ? QuantizeHere(options, cancellation, console)
                                                  : QuantizeAsJob(options, cancellation, console));
  const absl::Duration time = absl::Now() - start;
  if (options.output.json) {
    console.OutLine(DumpJson(Json{{"destination", options.spec.destination},
                                  {"bytes", result.bytes},
                                  {"seconds", absl::ToDoubleSeconds(time)},
                                  {"metrics", result.metrics}}));
    return absl::OkStatus();
  }
  if (options.spec.batch || !options.spec.text.empty()) {
    console.Out(QuantizeSummary(options.spec, result));
  }
  if (!options.output.quiet) {
    console.ErrLine(absl::StrFormat("%s: %s in %s", options.spec.destination,
                                    FormatBytes(result.bytes), ShortDuration(time)));
  }
  return absl::OkStatus();
}

void AddTensorFlags(CLI::App& command, QuantizeSpec& spec) {
  command.add_flag("--pure", spec.pure, "The type's format for all tensors, without its rules");
  command
      .add_option("--tensor-type", spec.tensor_types,
                  "A format for tensors in whose names a regular expression is found, whatever the "
                  "case; the first that is found decides. May be given more than once")
      ->type_name("REGEX=FORMAT")
      ->allow_extra_args(false);
  command
      .add_option("--output-tensor-type", spec.output_tensor_type, "The format of output.weight")
      ->type_name("FORMAT");
  command
      .add_option("--token-embedding-type", spec.token_embedding_type,
                  "The format of token_embd.weight")
      ->type_name("FORMAT");
  command.add_flag("--leave-output-tensor", spec.leave_output_tensor,
                   "Leave output.weight as it is");
  command.add_flag("--allow-requantize", spec.allow_requantize,
                   "Quantize tensors that are quantized already, which adds to what they lost");
  command.add_flag("--force-ternary", spec.force_ternary,
                   "Round to tq1_0 and tq2_0 also weights that are not ternary");
  command
      .add_option("--imatrix", spec.importance,
                  "Weigh errors by this importance matrix, of odmoe imatrix or llama-imatrix")
      ->type_name("FILE");
}

void AddOutputFlags(CLI::App& command, QuantizeArguments& options) {
  QuantizeSpec& spec = options.spec;
  command.add_flag("--directories", spec.directories,
                   "With --types: model directories, not GGUF files");
  command.add_flag("--keep-split", spec.keep_split, "Shards as a split GGUF source has them");
  command
      .add_option_function<std::string>(
          "--split-max-size",
          [&spec](const std::string& size) { spec.split_max_bytes = *ParseSplitSize(size); },
          "Shards of at most this size, NAME-00001-of-0000N.gguf: bytes, or with K, M or G (powers "
          "of "
          "1000)")
      ->type_name("SIZE")
      ->check(CheckedBy(ParseSplitSize));
  command
      .add_option("--concurrency", spec.concurrency,
                  "Pieces made at once; 0: one a core. The output is the same")
      ->type_name("N")
      ->check(CLI::Range(0, 64));
  command.add_flag("--no-trial", spec.skip_trial,
                   "With --types: do not have each model continue a text to see that it works");
  command
      .add_option(
          "--text", spec.text,
          "Measure each model on this text: perplexity, and with --base-model KL divergence")
      ->type_name("FILE");
  command
      .add_option("--base-model", spec.base_model,
                  "The model directory that the others' predictions are compared with")
      ->type_name("DIR");
  command.add_flag("--dry-run", options.dry_run,
                   "Print each tensor's format and the sizes; write nothing");
  command.add_flag("--force", options.force, "Replace existing models");
  command.add_flag("--restart", options.restart,
                   "Begin anew where an interrupted run has left work to go on with");
}

}  // namespace

void AddQuantizeCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<QuantizeArguments>();
  CLI::App* command =
      app.add_subcommand("quantize", "A model with smaller weights, or several of it");
  command
      ->add_option("source", options->spec.source,
                   "GGUF file, model directory or Hugging Face directory")
      ->required()
      ->type_name("SRC");
  command
      ->add_option("-o,--output", options->spec.destination,
                   "What to make: a GGUF file where it ends in .gguf, else a model directory; with "
                   "--types the folder for them")
      ->required()
      ->type_name("DST");
  command
      ->add_option("--type", options->type,
                   absl::StrCat("Any of ", absl::StrJoin(AllMixes(), ", ",
                                                         [](std::string* out, const MixInfo& mix) {
                                                           absl::StrAppend(out, mix.name);
                                                         })))
      ->type_name("TYPE")
      ->check(CheckedBy(ParseTypes));
  command
      ->add_option("--types", options->types,
                   "Several, out of one reading: DST/NAME-TYPE.gguf each, and a table of them")
      ->type_name("TYPE,TYPE..")
      ->check(CheckedBy(ParseTypes));
  AddTensorFlags(*command, options->spec);
  AddOutputFlags(*command, *options);
  AddEndpointOption(*command, options->endpoint,
                    "Submit a job to this conversion service and watch it to its end");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Formats of single tensors are names as q6_K, iq4_nl, f16. What was killed or failed goes "
      "on\n"
      "with the same command.\n"
      "Examples:\n"
      "  odmoe quantize kimi.gguf -o kimi-q4_k_m.gguf --type q4_k_m\n"
      "  odmoe quantize Kimi-K2/ -o kimi --type q4_k_m --tensor-type 'attn_.*=q8_0'\n"
      "  odmoe quantize kimi -o models --types q4_k_m,q6_k,q8_0 --directories --text wiki.txt\n"
      "  odmoe quantize kimi.gguf -o kimi-q2_k_s.gguf --type q2_k_s --imatrix kimi.imatrix");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
