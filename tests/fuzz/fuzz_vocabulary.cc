// A hostile vocabulary and a text: whatever tokenizer can be made of it gives tokens it knows. The
// first byte chooses the family; then a line a token, "<type><score byte><text>", an empty line, a
// line a merge, an empty line, the character map up to a line "---", and the text.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "services/inference/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_file.h"
#include "tests/inference/tokenizer/piece_vocabulary.h"

namespace odmoe {
namespace {

constexpr absl::string_view kModels[] = {"gpt2",   "gemma4", "whitespace", "llama",
                                         "t5",     "bert",   "rwkv",       "plamo2"};

TextToken ParseToken(absl::string_view line) {
  const auto byte = [&](size_t i) { return i < line.size() ? static_cast<uint8_t>(line[i]) : 0; };
  return {std::string(line.substr(std::min<size_t>(line.size(), 2))),
          static_cast<double>(byte(1)) - 128, static_cast<TokenType>(byte(0) % 6 + 1)};
}

struct Input {
  std::vector<TextToken> tokens;
  std::vector<std::string> merges;
  std::vector<int64_t> map;
  std::string text;
};

Input Parse(const std::string& bytes) {
  Input input;
  const std::pair<std::string, std::string> vocabulary =
      absl::StrSplit(bytes, absl::MaxSplits("\n\n", 1));
  const std::pair<std::string, std::string> merges =
      absl::StrSplit(vocabulary.second, absl::MaxSplits("\n\n", 1));
  const std::pair<std::string, std::string> map =
      absl::StrSplit(merges.second, absl::MaxSplits("\n---\n", 1));
  for (absl::string_view line : absl::StrSplit(vocabulary.first, '\n')) {
    input.tokens.push_back(ParseToken(line));
  }
  for (absl::string_view line : absl::StrSplit(merges.first, '\n', absl::SkipEmpty())) {
    input.merges.emplace_back(line);
  }
  for (char byte : map.first) input.map.push_back(byte);
  input.text = map.second;
  return input;
}

void Run(absl::string_view model, const Input& input) {
  // Every byte has a token, so that most vocabularies can be used at all.
  GgufMetadata metadata = MakeTextMetadata(std::string(model), WithBytes(input.tokens));
  metadata.Set("tokenizer.ggml.unknown_token_id", GgufValue::U32(0));
  metadata.Set("tokenizer.ggml.merges", GgufValue::Strings(input.merges));
  metadata.Set("tokenizer.ggml.precompiled_charsmap", GgufValue::I32s(input.map));
  metadata.Set("tokenizer.ggml.remove_extra_whitespaces",
               GgufValue::Bool(input.map.size() % 2 != 0));
  const auto tokenizer = Tokenizer::Create(metadata);
  if (!tokenizer.ok()) return;
  for (bool special : {false, true}) {
    const auto tokens =
        (*tokenizer)->Encode(input.text, {.add_special = special, .parse_special = special});
    if (!tokens.ok()) continue;
    Require((*tokenizer)->Decode(*tokens).ok(), "tokens outside the vocabulary");
  }
}

}  // namespace
}  // namespace odmoe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  Run(kModels[data[0] % std::size(kModels)], Parse(bytes));
  return 0;
}
