// A model card is YAML from outside: whatever it holds, it is read or refused.
#include "absl/strings/string_view.h"
#include "converter/huggingface/model_card.h"
#include "converter/huggingface/model_id.h"

#include <nlohmann/json.hpp>

#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto card = ParseModelCard(text);
  if (card.ok()) Require(card->is_object(), "an accepted card is no object");
  // The same bytes as a model's id.
  ParseModelId(text, 1'000'000'000);
  TitleOfId(text);
  return 0;
}
