#include "clients/cli/jobs/convert_flags.h"

#include "absl/strings/match.h"
#include "clients/cli/commands/command.h"
#include "converter/convert.h"

namespace odmoe {

void AddConvertFlags(CLI::App& command, ConvertSpec& spec) {
  command
      .add_option("--outtype", spec.outtype,
                  "Number format of the weights; auto keeps the checkpoint's, tq1_0, tq2_0 and "
                  "i2_s are for ternary ones. A GGUF source keeps its bytes")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"auto", "f32", "f16", "bf16", "q8_0", "tq1_0", "tq2_0", "i2_s"}));
  command
      .add_option("--pre-tokenizer", spec.pre_tokenizer,
                  "GGUF's name of how the checkpoint splits words, where it is not recognized")
      ->type_name("NAME");
  command.add_flag(
      "--vocab-only", spec.vocab_only,
      "Write the tokenizer and the other keys, but no weights, which need not be there");
  command
      .add_option(
          "--pad-vocab", spec.pad_vocab,
          "Grow the vocabulary, embedding and head to the next multiple, with rows of zeros")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  command
      .add_option(
          "--tensor-map", spec.tensor_map,
          "For architectures that are not known: a JSON object of the tensors' patterns and "
          "their GGUF names, {} for a number; null leaves a tensor out")
      ->type_name("FILE");
  command
      .add_option(
          "--metadata", spec.metadata,
          "Set a key of the GGUF file; VALUE may begin with its type, as in u32:5. Or a file "
          "of such lines. May be given more than once")
      ->type_name("KEY=VALUE|FILE")
      ->allow_extra_args(false);
  command
      .add_option("--base", spec.base_model,
                  "Of a LoRA adapter: the folder with its base model's config.json")
      ->type_name("DIR");
  command
      .add_option_function<std::string>(
          "--split-max-size",
          [&spec](const std::string& size) { spec.split_max_bytes = *ParseSplitSize(size); },
          "Write a GGUF file as shards of at most this size, NAME-00001-of-0000N.gguf: a number of "
          "bytes, or with K, M or G (powers of 1000)")
      ->type_name("SIZE")
      ->check(CheckedBy(ParseSplitSize));
  command
      .add_option("--concurrency", spec.concurrency,
                  "Tensors or experts made at once; 0: one a core. The output is the same")
      ->type_name("N")
      ->check(CLI::Range(0, 64));
  command.add_flag(
      "--restart", spec.restart,
      "Begin anew where an interrupted conversion has left work to go on with; as a job, "
      "where another conversion has");
}

ConvertSpec WithAbsolutePaths(ConvertSpec spec) {
  for (std::string* path : {&spec.source, &spec.destination, &spec.tensor_map, &spec.base_model}) {
    if (!path->empty()) *path = AbsolutePath(*path);
  }
  for (std::string& entry : spec.metadata) {
    if (!absl::StrContains(entry, '=')) entry = AbsolutePath(entry);
  }
  return spec;
}

}  // namespace odmoe
