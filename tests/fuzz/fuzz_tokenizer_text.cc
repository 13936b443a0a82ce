// Any text through every pre-tokenizer: UTF-8 has tokens that write it again, the rest is refused,
// and streaming the tokens shows what decoding them gives. The first byte chooses the pre-tokenizer,
// the second whether special tokens are recognized.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "services/core/base/utf8.h"
#include "services/core/formats/pre_tokenizers.h"
#include "services/inference/sampling/text_stream.h"
#include "services/inference/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_file.h"
#include "tests/inference/tokenizer/byte_vocabulary.h"

namespace odmoe {
namespace {

std::vector<std::unique_ptr<Tokenizer>> MakeTokenizers() {
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;
  for (const PreTokenizer& pre : PreTokenizers()) {
    auto tokenizer = Tokenizer::Create(MakeMetadata(
        {.pre = std::string(pre.name),
         .merges = {"Ġ a", "a a", "aa aa", "Ã ©", "Ċ Ċ", "Ġ Ġ", "1 2", "' s", "i n", "in g"},
         .special = {{"<|im_end|>", TokenType::kControl},
                     {"<|im_end|>>", TokenType::kControl},
                     {"<tool>", TokenType::kUserDefined}}}));
    Require(tokenizer.ok(), "a tokenizer that cannot be made");
    tokenizers.push_back(*std::move(tokenizer));
  }
  return tokenizers;
}

std::string Stream(const Tokenizer& tokenizer, const std::vector<TokenId>& tokens) {
  TextStream stream({});
  std::string text;
  for (TokenId token : tokens) text += stream.Append(tokenizer.Piece(token));
  return text + stream.Finish();
}

void Check(const Tokenizer& tokenizer, bool nfc, absl::string_view text, bool parse_special) {
  const TokenizeOptions options = {.add_special = false, .parse_special = parse_special};
  const auto tokens = tokenizer.Encode(text, options);
  const bool valid = FirstInvalidUtf8(text) == text.size();
  Require(tokens.ok() == valid, "UTF-8 refused, or something else taken");
  if (!valid) return;
  const auto decoded = tokenizer.Decode(*tokens);
  Require(decoded.ok(), "tokens outside the vocabulary");
  Require(nfc || *decoded == text, "the tokens write another text");
  Require(Stream(tokenizer, *tokens) == *decoded, "streaming shows another text");
  const auto again = tokenizer.Encode(*decoded, options);
  Require(again.ok() && *tokenizer.Decode(*again) == *decoded, "normalizing twice changes the text");
}

}  // namespace
}  // namespace odmoe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  static const auto& tokenizers = *new std::vector<std::unique_ptr<Tokenizer>>(MakeTokenizers());
  if (size < 2) return 0;
  const size_t index = data[0] % tokenizers.size();
  const absl::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  Check(*tokenizers[index], PreTokenizers()[index].nfc, text, (data[1] & 1) != 0);
  return 0;
}
