// A byte-level vocabulary in two files, vocab.json and merges.txt, as GPT-2 had it and older
// checkpoints do that have no tokenizer.json.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "converter/huggingface/checkpoint.h"

namespace odmoe {

// The lines of merges.txt, "a b" each. A first line that begins with "#" is its version; empty ones
// are left out. DATA_LOSS: a line that is no pair, with its number.
absl::StatusOr<std::vector<std::string>> ParseMergesFile(absl::string_view text,
                                                         const std::string& where);

// The two files as the tokenizer.json they stand for, without pre-tokenizer or added tokens; null:
// they are not both there. DATA_LOSS: corrupt.
absl::StatusOr<std::optional<nlohmann::json>> ReadMergesFiles(const Checkpoint& checkpoint);

// The pre-tokenizer of such files, which only the class in tokenizer_config.json tells.
// INVALID_ARGUMENT: another class than those that are known, which the message lists; `where` names
// the file.
absl::StatusOr<std::string> PreTokenizerOfClass(const nlohmann::json& tokenizer_config,
                                                const std::string& where);

}  // namespace odmoe
