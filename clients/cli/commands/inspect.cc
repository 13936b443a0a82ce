// odmoe inspect PATH
#include "converter/inspect/inspect.h"

#include <memory>
#include <string>

#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

struct InspectArguments {
  std::string path;
  bool json = false;
};

absl::Status Run(const InspectArguments& options, Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const Inspection inspection, InspectModel(options.path));
  console.Out(options.json ? InspectionJson(inspection) : InspectionText(inspection));
  return absl::OkStatus();
}

}  // namespace

void AddInspectCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<InspectArguments>();
  CLI::App* command = app.add_subcommand("inspect", "Print what is in a model");
  command
      ->add_option("path", options->path,
                   "GGUF file, safetensors file, Hugging Face directory or model directory")
      ->required()
      ->type_name("PATH");
  command->add_flag("--json", options->json, "As JSON, with every key whole");
  command->footer(
      "Reads headers only, so that a file of any size is printed at once.\n"
      "Examples:\n"
      "  odmoe inspect kimi.gguf\n"
      "  odmoe inspect kimi --json | jq '.experts[0]'");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
