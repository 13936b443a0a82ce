// A file of ranks: what is accepted has merges of tokens that the file lists.
#include <string>

#include "absl/strings/str_split.h"
#include "converter/huggingface/tiktoken_ranks.h"
#include "services/core/formats/byte_characters.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const auto ranks =
      ParseTiktokenRanks({reinterpret_cast<const char*>(data), size}, "tiktoken.model");
  if (!ranks.ok()) return 0;
  for (const std::string& merge : MergesOfRanks(*ranks)) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(merge, absl::MaxSplits(' ', 1));
    const auto left = BytesOfCharacters(parts.first);
    const auto right = BytesOfCharacters(parts.second);
    Require(left && right && !left->empty() && !right->empty(), "a merge that is none");
  }
  return 0;
}
