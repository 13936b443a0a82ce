// odmoe score MODEL -f FILE
#include <cmath>
#include <memory>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "clients/cli/model/model_options.h"
#include "clients/cli/model/route_recording.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

struct ScoreArguments {
  ModelOptions model;
  TextOptions text;
  bool special = false;
  bool experts = false;
  std::string trace;
  OutputOptions output;
};

Json ToJson(const ScoreResult& result) {
  Json json;
  json["tokens"] = result.tokens;
  Json logprobs = Json::array();
  for (const double logprob : result.logprobs) {
    logprobs.push_back(std::isnan(logprob) ? Json(nullptr) : Json(logprob));
  }
  json["logprobs"] = std::move(logprobs);
  json["perplexity"] = result.perplexity;
  if (result.experts.empty()) return json;
  Json layers = Json::object();
  for (const auto& [layer, tokens] : result.experts) layers[std::to_string(layer)] = tokens;
  json["experts"] = std::move(layers);
  return json;
}

void Print(const ScoreResult& result, Console& console) {
  console.OutLine(absl::StrFormat("perplexity %.4f over %d tokens", result.perplexity,
                                  result.tokens.size() - 1));
  for (const auto& [layer, tokens] : result.experts) {
    console.OutLine(absl::StrFormat("layer %d", layer));
    for (size_t i = 0; i < tokens.size(); ++i) {
      console.OutLine(absl::StrFormat("  token %d: %s", i, absl::StrJoin(tokens[i], " ")));
    }
  }
}

absl::Status Run(const ScoreArguments& options, Console& console) {
  ODMOE_RETURN_IF_ERROR(CheckTraceFlag(options.trace, options.model));
  ScoreRequest request;
  ODMOE_ASSIGN_OR_RETURN(request.prompt.text, ReadText(options.text, console));
  request.prompt.tokenize = {.add_special = options.special, .parse_special = options.special};
  request.experts = options.experts || !options.trace.empty();
  if (request.prompt.text.empty()) return absl::InvalidArgumentError("the text to score is empty");
  const SignalScope signals;
  ODMOE_ASSIGN_OR_RETURN(const OpenedModel opened, OpenModel(options.model));
  if (!opened.warning.empty()) console.ErrLine("odmoe: " + opened.warning);
  std::unique_ptr<RouteRecording> recording;
  if (!options.trace.empty()) {
    ODMOE_ASSIGN_OR_RETURN(recording,
                           RouteRecording::Start(options.trace, ModelName(options.model.model),
                                                 opened.experts->catalog()));
  }
  ODMOE_ASSIGN_OR_RETURN(ScoreResult result,
                         opened.model->Score(request, {.cancellation = &signals.cancellation()}));
  if (recording != nullptr) {
    // As its tokens would be routed were they decoded one by one.
    ODMOE_RETURN_IF_ERROR(recording->Finish(result.experts, /*prefill_tokens=*/0));
    if (!options.experts) result.experts.clear();
  }
  if (options.output.json) {
    console.OutLine(DumpJson(ToJson(result)));
  } else {
    Print(result, console);
  }
  return absl::OkStatus();
}

}  // namespace

void AddScoreCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<ScoreArguments>();
  CLI::App* command =
      app.add_subcommand("score", "Log-probabilities and perplexity of a text under a model");
  AddModelOptions(*command, options->model);
  command
      ->add_option("-f,--file", options->text.file,
                   "The text, byte for byte; without it, standard input")
      ->type_name("FILE");
  command->add_flag("--experts", options->experts,
                    "Report the experts chosen at each layer for each token");
  command
      ->add_option("--trace", options->trace,
                   "Record the experts chosen, as JSON lines for odmoe replay")
      ->type_name("FILE");
  command->add_flag(
      "--special", options->special,
      "Add the model's BOS and EOS, and recognize special tokens in the text; without "
      "it the text is plain text");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Examples:\n"
      "  odmoe score kimi -f chapter.txt\n"
      "  odmoe score kimi -f chapter.txt --trace chapter.jsonl\n"
      "  odmoe score kimi -f chapter.txt --experts --json\n"
      "      "
      "{\"tokens\":[..],\"logprobs\":[null,..],\"perplexity\":x,\"experts\":{\"1\":[[3,7],..]}}");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
