// odmoe evaluate MODEL
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/commands/conversion_progress.h"
#include "clients/cli/commands/evaluation_report.h"
#include "clients/cli/console/progress.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/model/model_options.h"
#include "converter/evaluate/plot_svg.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

struct EvaluateArguments {
  ModelOptions model;
  TextOptions text;
  std::string base;
  std::string base_budget = "auto";
  std::string logits;          // a file of log-probabilities, written or
  bool read_logits = false;    // read
  int32_t chunk_tokens = 512;
  int64_t max_chunks = 0;
  bool tensors = false;
  int worst = 20;
  int concurrency = 0;
  std::string svg;
  OutputOptions output;
};

// What was asked for, done.
struct Results {
  std::optional<TextReport> text;
  std::optional<TensorReport> tensors;
};

bool WantsText(const EvaluateArguments& options) {
  return !options.text.file.empty() || options.read_logits;
}

absl::Status CheckOptions(const EvaluateArguments& options) {
  if (options.tensors && options.base.empty()) {
    return UsageError("--tensors compares with a base model: give --base");
  }
  if (options.read_logits && options.logits.empty()) {
    return UsageError("--kl-divergence reads a file: name it with --kl-divergence-base");
  }
  if (options.read_logits && !options.text.file.empty()) {
    return UsageError("--kl-divergence takes its text from the file: leave out -f");
  }
  if (options.read_logits && !options.base.empty() && !options.tensors) {
    return UsageError("--kl-divergence and --base each name a base: give one");
  }
  if (WantsText(options) || options.tensors) return absl::OkStatus();
  return UsageError("nothing to evaluate: give a text with -f, or --base with --tensors");
}

absl::StatusOr<TextReport> RunText(const EvaluateArguments& options,
                                   const Cancellation& cancellation, ProgressDisplay& display,
                                   Console& console) {
  std::string text;
  if (!options.read_logits) {
    ODMOE_ASSIGN_OR_RETURN(text, ReadText(options.text, console));
  }
  ODMOE_ASSIGN_OR_RETURN(const OpenedModel model, OpenModel(options.model));
  EvaluateTextOptions evaluate;
  evaluate.chunk_tokens = options.chunk_tokens;
  evaluate.max_chunks = options.max_chunks;
  OpenedModel base;
  if (options.read_logits) {
    evaluate.base_logits = options.logits;
  } else {
    evaluate.save_logits = options.logits;
    if (!options.base.empty()) {
      ModelOptions base_options = options.model;
      base_options.model = options.base;
      base_options.expert_budget = options.base_budget;
      base_options.expert_store.clear();
      base_options.remote_expert_store.clear();
      ODMOE_ASSIGN_OR_RETURN(base, OpenModel(base_options));
      evaluate.base = base.model.get();
    }
  }
  return EvaluateText(*model.model, text, evaluate, &cancellation,
                      [&](const TextProgress& progress) {
                        ProgressState state;
                        state.step = "evaluate";
                        state.step_count = options.tensors ? 2 : 1;
                        // Chunks, as text weighs too little to be told in bytes.
                        state.item = absl::StrFormat("chunk %d of %d", progress.done_chunks,
                                                     progress.total_chunks);
                        if (progress.done_chunks > 0) {
                          absl::StrAppendFormat(&state.item, ", perplexity %.4f",
                                                progress.perplexity);
                        }
                        display.Update(std::move(state));
                      });
}

absl::StatusOr<Results> Evaluate(const EvaluateArguments& options, Console& console) {
  const SignalScope signals;
  ProgressDisplay display(console, options.output.quiet);
  Results results;
  if (WantsText(options)) {
    ODMOE_ASSIGN_OR_RETURN(results.text,
                           RunText(options, signals.cancellation(), display, console));
  }
  if (options.tensors) {
    ODMOE_ASSIGN_OR_RETURN(
        results.tensors,
        CompareTensors({.model = options.model.model,
                        .base = options.base,
                        .concurrency = options.concurrency},
                       &signals.cancellation(), [&](const ConvertProgress& progress) {
                         ProgressState state = ToProgressState(progress);
                         if (results.text) state.step_number = state.step_count = 2;
                         display.Update(std::move(state));
                       }));
  }
  return results;
}

absl::Status Run(const EvaluateArguments& options, Console& console) {
  ODMOE_RETURN_IF_ERROR(CheckOptions(options));
  ODMOE_ASSIGN_OR_RETURN(const Results results, Evaluate(options, console));
  if (!options.svg.empty()) {
    EvaluationPlot plot;
    plot.title = options.base.empty()
                     ? options.model.model
                     : absl::StrCat(options.model.model, " against ", options.base);
    if (results.tensors) plot.tensors = &*results.tensors;
    if (results.text && results.text->divergence) plot.divergence = &*results.text->divergence;
    ODMOE_RETURN_IF_ERROR(WriteTextFile(options.svg, PlotSvg(plot)));
  }
  if (options.output.json) {
    Json json;
    json["model"] = options.model.model;
    if (!options.base.empty()) json["base"] = options.base;
    if (results.text) json["text"] = ToJson(*results.text);
    if (results.tensors) json["weights"] = ToJson(*results.tensors);
    console.OutLine(DumpJson(json));
    return absl::OkStatus();
  }
  if (results.text) console.Out(ToText(*results.text));
  if (results.text && results.tensors) console.OutLine("");
  if (results.tensors) console.Out(ToText(*results.tensors, options.worst));
  return absl::OkStatus();
}

void AddTextOptions(CLI::App& command, EvaluateArguments& options) {
  command
      .add_option("-f,--file", options.text.file,
                  "A text to read, byte for byte; - for standard "
                  "input")
      ->type_name("FILE");
  command.add_option("-c,--chunk", options.chunk_tokens,
                     "Tokens of a chunk, of which the second half is scored")
      ->check(CLI::Range(EvaluateTextOptions::kMinChunkTokens, 1 << 24))
      ->type_name("N")
      ->capture_default_str();
  command.add_option("--chunks", options.max_chunks, "Read no more chunks than this; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31))
      ->type_name("N");
  command.add_option("--kl-divergence-base", options.logits,
                     "A file of log-probabilities in the reference tool's form: this model's are "
                     "written to it, or with --kl-divergence a base's are read from it")
      ->type_name("FILE");
  command.add_flag("--kl-divergence", options.read_logits,
                   "Compare with the file instead of a base model; the text is in it");
}

}  // namespace

void AddEvaluateCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<EvaluateArguments>();
  CLI::App* command = app.add_subcommand(
      "evaluate", "Perplexity of a model on a text, and what a quantization lost against its base");
  AddLocalModelOptions(*command, options->model);
  AddTextOptions(*command, *options);
  command
      ->add_option("-b,--base", options->base,
                   "The model to compare with: a model directory, or with --tensors alone a GGUF "
                   "file or a Hugging Face checkpoint too")
      ->type_name("MODEL");
  command
      ->add_option("--base-expert-budget", options->base_budget,
                   "As --expert-budget, of the base model")
      ->type_name("SIZE")
      ->capture_default_str();
  command->add_flag("--tensors", options->tensors,
                    "Compare the weights, tensor by tensor, with the base's");
  command->add_option("--worst", options->worst, "Tensors to list, the worst first")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--concurrency", options->concurrency,
                      "Threads that compare weights; 0: one a core")
      ->check(CLI::Range(0, 64))
      ->type_name("N");
  command->add_option("--svg", options->svg, "Write a plot of what was measured")
      ->type_name("FILE");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Runs the models in this process: a service gives no logits.\n"
      "Examples:\n"
      "  odmoe evaluate kimi-q4 -f wiki.test.raw\n"
      "  odmoe evaluate kimi-q4 -f wiki.test.raw --base kimi --tensors --svg kimi-q4.svg\n"
      "  odmoe evaluate kimi-q4.gguf --base kimi.gguf --tensors --json\n"
      "      {\"weights\":{\"tensors\":[{\"name\":..,\"relative\":x,..}],\"layers\":[..]}}");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
