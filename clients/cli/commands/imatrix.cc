// odmoe imatrix MODEL -f TEXT -o OUT.gguf
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/console/progress.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/json_output.h"
#include "clients/cli/model/model_options.h"
#include "converter/quantize/gather_importance.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

struct ImatrixArguments {
  ModelOptions model;
  TextOptions text;
  std::string output;
  GatherImportanceOptions gather;
  OutputOptions common;
};

absl::Status Run(const ImatrixArguments& options, Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadText(options.text, console));
  const SignalScope signals;
  ProgressDisplay display(console, options.common.quiet);
  ImportanceSums sums(options.gather.with_output);
  ODMOE_ASSIGN_OR_RETURN(const OpenedModel opened, OpenModel(options.model, &sums));
  ODMOE_ASSIGN_OR_RETURN(
      const int64_t chunks,
      GatherImportance(*opened.model, text, sums, options.gather, &signals.cancellation(),
                       [&](const TextProgress& progress) {
                         ProgressState state;
                         state.step = "imatrix";
                         state.item = absl::StrFormat("chunk %d of %d", progress.done_chunks,
                                                      progress.total_chunks);
                         display.Update(std::move(state));
                       }));
  display.Finish();
  const std::string dataset = options.text.file.empty() ? "-" : options.text.file;
  ODMOE_RETURN_IF_ERROR(sums.Write(PosixFileSystem(), options.output,
                                   {{dataset}, static_cast<uint32_t>(chunks),
                                    static_cast<uint32_t>(options.gather.chunk_tokens)}));
  const auto unseen = sums.UnseenExperts();
  if (options.common.json) {
    console.OutLine(DumpJson(Json{{"output", options.output},
                                  {"tensors", sums.size()},
                                  {"chunks", chunks},
                                  {"chunk_tokens", options.gather.chunk_tokens},
                                  {"unseen_experts", unseen}}));
    return absl::OkStatus();
  }
  if (options.common.quiet) return absl::OkStatus();
  for (const auto& [name, count] : unseen) {
    console.ErrLine(absl::StrCat(name, ": ", count, " experts were never chosen"));
  }
  console.ErrLine(absl::StrFormat("%s: %d tensors, %d chunks of %d tokens", options.output,
                                  sums.size(), chunks, options.gather.chunk_tokens));
  return absl::OkStatus();
}

}  // namespace

void AddImatrixCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<ImatrixArguments>();
  CLI::App* command = app.add_subcommand(
      "imatrix", "Compute an importance matrix: how strongly a text drives each weight's inputs");
  AddLocalModelOptions(*command, options->model);
  command
      ->add_option("-f,--file", options->text.file,
                   "The text, byte for byte; without it, standard input")
      ->type_name("FILE");
  command->add_option("-o,--output", options->output, "Where to write it")
      ->required()
      ->type_name("OUT.gguf");
  command->add_option("-c,--chunk", options->gather.chunk_tokens, "Tokens of a chunk")
      ->check(CLI::Range(EvaluateTextOptions::kMinChunkTokens, 1 << 24))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--chunks", options->gather.max_chunks, "Read no more chunks than this; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31))
      ->type_name("N");
  command->add_flag("--process-output", options->gather.with_output,
                    "The output head's inputs too");
  AddOutputOptions(*command, options->common);
  command->footer(
      "Writes the reference tool's GGUF form; each expert of a layer has sums of its own.\n"
      "Examples:\n"
      "  odmoe imatrix kimi -f calibration.txt -o kimi-imatrix.gguf\n"
      "  odmoe quantize kimi -o kimi-q4 --type q4_k_m --imatrix kimi-imatrix.gguf");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
