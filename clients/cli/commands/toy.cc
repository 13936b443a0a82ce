// odmoe toy OUT.gguf
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "converter/toy/toy_model.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

struct ToyArguments {
  std::string path;
  ToyOptions toy;
  std::string outtype = "f32";
  bool force = false;
  OutputOptions output;
};

absl::Status Run(ToyArguments& options, Console& console) {
  if (!absl::EndsWith(options.path, ".gguf")) {
    return UsageError(absl::StrCat(options.path, " does not end in .gguf"));
  }
  ODMOE_ASSIGN_OR_RETURN(options.toy.outtype, ParseOutType(options.outtype));
  std::error_code error;
  if (std::filesystem::exists(options.path, error) && !options.force) {
    return absl::AlreadyExistsError(
        absl::StrCat(options.path, " exists; give another name, or --force to replace it"));
  }
  const SignalScope signals;
  options.toy.cancellation = &signals.cancellation();
  ODMOE_RETURN_IF_ERROR(WriteToyModel(options.toy, options.path));
  const uint64_t bytes = std::filesystem::file_size(options.path, error);
  if (options.output.json) {
    Json json;
    json["destination"] = options.path;
    json["bytes"] = bytes;
    console.OutLine(DumpJson(json));
  } else if (!options.output.quiet) {
    console.ErrLine(absl::StrFormat("%s: %s; convert it with: odmoe convert %s -o %s",
                                    options.path, FormatBytes(bytes), options.path,
                                    options.path.substr(0, options.path.size() - 5)));
  }
  return absl::OkStatus();
}

}  // namespace

void AddToyCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<ToyArguments>();
  ToyOptions& toy = options->toy;
  CLI::App* command =
      app.add_subcommand("toy", "Write a random model with Kimi-K2's structure, to try things out");
  command->add_option("out", options->path, "The GGUF file to write")
      ->required()
      ->type_name("OUT.gguf");
  command->add_option("--layers", toy.layers, "Layers; the first is dense")->type_name("N");
  command->add_option("--experts", toy.experts, "Experts of a layer, beside a shared one")
      ->type_name("N");
  command->add_option("--top-k", toy.top_k, "Experts a token uses of a layer")->type_name("K");
  command->add_option("--dim", toy.dim, "Width of the hidden state")->type_name("D");
  command->add_option("--ffn-dim", toy.ffn_dim, "Width of an expert")->type_name("D");
  command->add_option("--seed", toy.seed, "The same seed gives the same file")->type_name("SEED");
  command->add_option("--outtype", options->outtype, "Number format of the weights")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0"}));
  command->add_flag("--force", options->force, "Replace an existing file");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Examples:\n"
      "  odmoe toy toy.gguf\n"
      "  odmoe toy big.gguf --layers 8 --experts 64 --top-k 4 --dim 512 --ffn-dim 1024 --seed 7");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
