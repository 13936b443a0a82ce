// odmoe tokenize MODEL|FILE.gguf [TEXT | -f FILE]
#include <filesystem>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/json_output.h"
#include "clients/cli/model/model_options.h"
#include "clients/cpp/remote_language_model.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/model_directory.h"
#include "services/inference/tokenizer/tokenizer.h"

namespace odmoe {
namespace {

struct TokenizeArguments {
  std::string model;
  std::string endpoint;
  TextOptions text;
  bool no_special = false;
  bool plain_special = false;
  OutputOptions output;
};

// The vocabulary is all a tokenizer needs, so a GGUF file will do, even one without tensors.
absl::StatusOr<GgufMetadata> ReadVocabulary(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    ODMOE_RETURN_IF_ERROR(CheckModelDirectory(path));
    return ReadModelMetadata(path);
  }
  ODMOE_ASSIGN_OR_RETURN(const auto model, GgufModel::Open(PosixFileSystem(), path));
  return model->metadata();
}

absl::StatusOr<std::vector<TokenId>> Encode(const TokenizeArguments& options,
                                            const std::string& text) {
  const TokenizeOptions tokenize{.add_special = !options.no_special,
                                 .parse_special = !options.plain_special};
  if (!options.endpoint.empty()) {
    ODMOE_ASSIGN_OR_RETURN(const auto model,
                           ConnectLanguageModel(options.endpoint, ModelName(options.model)));
    return model->Tokenize(text, tokenize);
  }
  ODMOE_ASSIGN_OR_RETURN(const GgufMetadata metadata, ReadVocabulary(options.model));
  ODMOE_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Create(metadata));
  return tokenizer->Encode(text, tokenize);
}

absl::Status Run(const TokenizeArguments& options, Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadText(options.text, console));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, Encode(options, text));
  if (options.output.json) {
    console.OutLine(DumpJson(Json{{"tokens", tokens}}));
  } else {
    console.OutLine(absl::StrJoin(tokens, " "));
  }
  return absl::OkStatus();
}

}  // namespace

void AddTokenizeCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<TokenizeArguments>();
  CLI::App* command = app.add_subcommand("tokenize", "Text to tokens");
  command->add_option("model", options->model, "Model directory or GGUF file")
      ->required()
      ->type_name("MODEL|FILE.gguf");
  CLI::Option* text =
      command->add_option("text", options->text.text, "The text; without it and -f, standard input")
          ->type_name("TEXT");
  command->add_option("-f,--file", options->text.file, "Read the text from a file, byte for byte")
      ->type_name("FILE");
  command->add_flag("--no-special", options->no_special, "Add no BOS or EOS token");
  command->add_flag("--plain-special", options->plain_special,
                    "Treat special tokens' names in the text as plain text");
  AddEndpointOption(*command, options->endpoint, "Ask this inference service");
  AddOutputOptions(*command, options->output);
  command->footer(
      "Examples:\n"
      "  odmoe tokenize kimi 'It was a dark night'\n"
      "  odmoe tokenize vocab.gguf -f book.txt --no-special --json     {\"tokens\":[1053,307,..]}\n"
      "  odmoe tokenize kimi -- --a-text-that-starts-with-a-dash");
  command->callback([&invocation, options, text] {
    options->text.has_text = text->count() > 0;
    invocation.run = [options](Console& console) { return Run(*options, console); };
  });
}

}  // namespace odmoe
