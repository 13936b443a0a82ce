// Any text through every pre-tokenizer and every family: UTF-8 has tokens, where nothing is
// normalized tokens that write it again; the rest is refused; and streaming the tokens shows what
// decoding them gives. The first byte chooses the tokenizer, the second whether special tokens are
// recognized.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/core/base/utf8.h"
#include "services/core/formats/pre_tokenizers.h"
#include "services/inference/sampling/text_stream.h"
#include "services/inference/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_file.h"
#include "tests/inference/tokenizer/byte_vocabulary.h"
#include "tests/inference/tokenizer/piece_vocabulary.h"

namespace odmoe {
namespace {

struct Subject {
  std::unique_ptr<Tokenizer> tokenizer;
  bool normalizes = false;  // what comes back may be another text
  bool loses = false;       // and not even a stable one
};

void Add(const GgufMetadata& metadata, bool normalizes, bool loses,
         std::vector<Subject>& subjects) {
  auto tokenizer = Tokenizer::Create(metadata);
  Require(tokenizer.ok(), "a tokenizer that cannot be made");
  subjects.push_back({*std::move(tokenizer), normalizes, loses});
}

std::vector<Subject> MakeSubjects() {
  std::vector<Subject> subjects;
  for (const PreTokenizer& pre : PreTokenizers()) {
    if (!pre.byte_characters) continue;
    Add(MakeMetadata(
            {.pre = std::string(pre.name),
             .merges = {"Ġ a", "a a", "aa aa", "Ã ©", "Ċ Ċ", "Ġ Ġ", "1 2", "' s", "i n", "in g"},
             .special = {{"<|im_end|>", TokenType::kControl},
                         {"<|im_end|>>", TokenType::kControl},
                         {"<tool>", TokenType::kUserDefined}}}),
        pre.nfc, false, subjects);
  }
  const std::vector<TextToken> pieces = WithBytes({{"▁", -3},
                                                   {"▁a", -1},
                                                   {"a", -4},
                                                   {"é", -5},
                                                   {"aé", -2},
                                                   {"▁▁", -2},
                                                   {"ing", -1},
                                                   {"in", -2},
                                                   {"<tool>", 0, TokenType::kUserDefined}});
  for (const std::string model :
       {"llama", "plamo2", "gemma4", "t5", "bert", "rwkv", "whitespace"}) {
    GgufMetadata metadata = MakeTextMetadata(model, pieces);
    metadata.Set("tokenizer.ggml.unknown_token_id", GgufValue::U32(0));
    metadata.Set("tokenizer.ggml.merges", GgufValue::Strings({"▁ ▁"}));
    metadata.Set("tokenizer.ggml.add_space_prefix", GgufValue::Bool(model == "llama"));
    Add(metadata, model != "llama" && model != "gemma4",
        model != "llama" && model != "gemma4" && model != "plamo2", subjects);
  }
  return subjects;
}

std::string Stream(const Tokenizer& tokenizer, const std::vector<TokenId>& tokens) {
  TextStream stream({});
  std::string text;
  for (TokenId token : tokens) text += stream.Append(tokenizer.Piece(token));
  return text + stream.Finish();
}

// What is written U+2581 in a text comes back as the space it stands for.
bool HasSpaceMark(absl::string_view text) {
  return text.find(kSpaceMark) != absl::string_view::npos;
}

void Check(const Subject& subject, absl::string_view text, bool parse_special) {
  const Tokenizer& tokenizer = *subject.tokenizer;
  const TokenizeOptions options = {.add_special = false, .parse_special = parse_special};
  const auto tokens = tokenizer.Encode(text, options);
  const bool valid = FirstInvalidUtf8(text) == text.size();
  Require(tokens.ok() == valid, "UTF-8 refused, or something else taken");
  if (!valid) return;
  const auto decoded = tokenizer.Decode(*tokens);
  Require(decoded.ok(), "tokens outside the vocabulary");
  if (subject.loses) return;
  const std::string streamed = Stream(tokenizer, *tokens);
  Require(streamed == *decoded || streamed == absl::StrCat(" ", *decoded),
          "streaming shows another text");
  const bool prefixed = tokenizer.adds_bos() && text.find('<') != absl::string_view::npos;
  if (subject.normalizes || HasSpaceMark(text) || prefixed) return;
  Require(*decoded == text, "the tokens write another text");
}

}  // namespace
}  // namespace odmoe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  static const auto& subjects = *new std::vector<Subject>(MakeSubjects());
  if (size < 2) return 0;
  const absl::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  Check(subjects[data[0] % subjects.size()], text, (data[1] & 1) != 0);
  return 0;
}
