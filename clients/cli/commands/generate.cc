// odmoe generate MODEL -p PROMPT -n N
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "clients/cli/model/model_options.h"
#include "clients/cli/model/route_recording.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

struct GenerateArguments {
  ModelOptions model;
  TextOptions prompt;
  GenerateRequest request;
  std::optional<uint64_t> seed;
  bool no_special = false;
  std::string trace;
  OutputOptions output;
};

struct Output {
  std::string text;
  std::vector<TokenId> tokens;
  GenerateSummary summary;
  uint64_t peak_rss_bytes = 0;
};

absl::string_view Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "";
}

Json ToJson(const Output& output) {
  const Timings& timings = output.summary.timings;
  const ExpertUse& experts = output.summary.experts;
  Json json;
  json["text"] = output.text;
  json["tokens"] = output.tokens;
  json["prompt_tokens"] = output.summary.prompt_tokens;
  json["finish_reason"] = std::string(Name(output.summary.finish_reason));
  json["timings"] = {{"prefill_ms", timings.prefill_ms},
                     {"decode_ms", timings.decode_ms},
                     {"tokens_per_second", timings.tokens_per_second}};
  json["experts"] = {{"hits", experts.hits},
                     {"misses", experts.misses},
                     {"hit_rate", experts.hit_rate()},
                     {"stall_ms", experts.stall_ms},
                     {"bytes_read", experts.bytes_read},
                     {"executed", experts.executed},
                     {"executed_bytes", experts.executed_bytes},
                     {"predicted", experts.predicted},
                     {"recall", experts.recall()}};
  json["peak_rss_bytes"] = output.peak_rss_bytes;
  return json;
}

std::string SummaryLine(const Output& output) {
  const Timings& timings = output.summary.timings;
  const ExpertUse& experts = output.summary.experts;
  std::string line = absl::StrFormat(
      "%d tokens, %.1f tokens/s | prompt %d tokens in %s | experts: %.1f%% of %d hit, %s read, "
      "stalled %s",
      output.tokens.size(), timings.tokens_per_second, output.summary.prompt_tokens,
      ShortDuration(absl::Milliseconds(timings.prefill_ms)), 100.0 * experts.hit_rate(),
      experts.hits + experts.misses, FormatBytes(experts.bytes_read),
      ShortDuration(absl::Milliseconds(experts.stall_ms)));
  if (experts.executed > 0) {
    line += absl::StrFormat(", %d computed remotely (%s sent and received)", experts.executed,
                            FormatBytes(experts.executed_bytes));
  }
  if (experts.predicted > 0) {
    line += absl::StrFormat(", %.1f%% predicted", 100.0 * experts.recall());
  }
  if (output.peak_rss_bytes > 0) {
    line += " | peak memory " + FormatBytes(output.peak_rss_bytes);
  }
  return line;
}

absl::StatusOr<Output> Generate(LanguageModel& model, const GenerateArguments& options,
                                const Cancellation& cancellation, Console& console) {
  Output output;
  const auto show = [&](const std::string& text) {
    output.text += text;
    if (!options.output.json && !text.empty()) console.Out(text);
  };
  auto summary = model.Generate(options.request, {.cancellation = &cancellation},
                                [&](const TokenEvent& event) {
                                  output.tokens.push_back(event.token);
                                  show(event.text);
                                  // Nobody reads on: a closed pipe or a full disk.
                                  return console.CheckOut().ok();
                                });
  if (summary.ok()) {
    output.summary = *std::move(summary);
    show(output.summary.tail);
  }
  if (!options.output.json && !output.text.empty()) console.Out("\n");
  if (!summary.ok()) return summary.status();
  return output;
}

absl::Status Run(GenerateArguments& options, Console& console) {
  ODMOE_RETURN_IF_ERROR(CheckTraceFlag(options.trace, options.model));
  options.request.experts = !options.trace.empty();
  ODMOE_ASSIGN_OR_RETURN(options.request.prompt.text, ReadText(options.prompt, console));
  options.request.prompt.tokenize.add_special = !options.no_special;
  options.request.sampling.seed = options.seed;
  if (options.request.prompt.text.empty()) return UsageError("the prompt is empty; give -p PROMPT");
  const SignalScope signals;
  ODMOE_ASSIGN_OR_RETURN(const OpenedModel opened, OpenModel(options.model));
  if (!opened.warning.empty()) console.ErrLine("odmoe: " + opened.warning);
  std::unique_ptr<RouteRecording> recording;
  if (!options.trace.empty()) {
    ODMOE_ASSIGN_OR_RETURN(recording,
                           RouteRecording::Start(options.trace, ModelName(options.model.model),
                                                 opened.experts->catalog()));
  }
  ODMOE_ASSIGN_OR_RETURN(Output output, Generate(*opened.model, options, signals.cancellation(),
                                                 console));
  if (recording != nullptr) {
    const auto prompt_tokens = static_cast<size_t>(output.summary.prompt_tokens);
    ODMOE_RETURN_IF_ERROR(recording->Finish(output.summary.chosen, prompt_tokens));
  }
  output.peak_rss_bytes = ModelPeakRssBytes(options.model);
  if (options.output.json) {
    console.OutLine(DumpJson(ToJson(output)));
  } else if (!options.output.quiet) {
    console.ErrLine(SummaryLine(output));
  }
  if (signals.signal() != 0) return absl::CancelledError("interrupted");
  return absl::OkStatus();
}

void AddSamplingOptions(CLI::App& command, GenerateArguments& options) {
  constexpr char kGroup[] = "Sampling";
  Sampling& sampling = options.request.sampling;
  command
      .add_option("--temp", sampling.temperature,
                  "Temperature; 0: always the most likely token")
      ->type_name("T")
      ->group(kGroup)
      ->check(CLI::Range(0.0, 100.0));
  command.add_option("--top-k", sampling.top_k, "Keep the K most likely tokens; 0: all")
      ->type_name("K")
      ->group(kGroup)
      ->check(CLI::NonNegativeNumber);
  command.add_option("--top-p", sampling.top_p, "Keep the most likely tokens that sum to P")
      ->type_name("P")
      ->group(kGroup)
      ->check(CLI::Range(0.0, 1.0));
  command
      .add_option("--min-p", sampling.min_p,
                  "Keep tokens at least P times as likely as the most likely")
      ->type_name("P")
      ->group(kGroup)
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--seed", options.seed, "Draw the same tokens each time")
      ->type_name("SEED")
      ->group(kGroup);
  // One value a flag: a list would swallow the arguments after it, and split "[a,b]".
  command
      .add_option("--stop", options.request.stop,
                  "End before this text; may be repeated, 16 times at most")
      ->type_name("TEXT")
      ->group(kGroup)
      ->default_str("")
      ->allow_extra_args(false);
}

}  // namespace

void AddGenerateCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<GenerateArguments>();
  options->request.max_tokens = 128;
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt, streaming the text");
  AddModelOptions(*command, options->model);
  CLI::Option* prompt = command->add_option("-p,--prompt", options->prompt.text, "The prompt")
                            ->type_name("PROMPT");
  command
      ->add_option("-f,--file", options->prompt.file,
                   "Read the prompt from a file, byte for byte; without it and -p, standard input")
      ->type_name("FILE");
  command->add_option("-n,--tokens", options->request.max_tokens, "Tokens to generate at most")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 30));
  command->add_flag("--ignore-eos", options->request.ignore_eos, "Go on past the end of the text");
  command->add_flag("--no-special", options->no_special, "Add no BOS token to the prompt");
  command
      ->add_option("--trace", options->trace,
                   "Record the experts chosen, as JSON lines for odmoe replay, which replays the "
                   "tokens generated")
      ->type_name("FILE");
  AddSamplingOptions(*command, *options);
  AddOutputOptions(*command, options->output);
  command->footer(
      "The text goes to standard output as it comes, a summary line to standard error.\n"
      "Examples:\n"
      "  odmoe generate kimi -p 'It was a dark night, and' -n 64 --temp 0\n"
      "  odmoe generate kimi -p 'Dear' --expert-budget 25% --source direct --json\n"
      "  odmoe generate kimi -p 'Dear' -n 500 --trace dear.jsonl             routing, for replay\n"
      "  odmoe generate kimi-00001-of-00003.gguf -p 'Dear'                   served in place\n"
      "  odmoe generate kimi -p 'Dear' --expert-store 127.0.0.1:9001         shared memory\n"
      "  odmoe generate kimi -p 'Dear' --remote-expert-store 10.0.0.7:9001 --expert-budget 2GiB\n"
      "  odmoe generate kimi -p 'Dear' --remote-experts 10.0.0.7:9001 --remote-mode auto\n"
      "  odmoe generate kimi -p 'Dear' --endpoint 127.0.0.1:9002             an inference service");
  command->callback([&invocation, options, prompt] {
    options->prompt.has_text = prompt->count() > 0;
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
