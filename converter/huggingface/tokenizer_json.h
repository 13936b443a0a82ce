// What a checkpoint's tokenizer.json and tokenizer_config.json hold, and GGUF's keys from it.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/huggingface/token_list.h"
#include "services/core/formats/gguf.h"
#include "services/core/formats/json.h"

namespace odmoe {

// Tokens have ids below this.
inline constexpr int64_t kMaxTokens = int64_t{1} << 24;

// tokenizer.json's `added_tokens`. DATA_LOSS: not a list of such.
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const JsonObject& tokenizer);

// tokenizer_config.json's `added_tokens_decoder`; `where` names the file. DATA_LOSS: not a map of
// such.
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokensDecoder(const nlohmann::json& config,
                                                               const std::string& where);

// Whether it is byte pairs in byte characters, or with bytes "<0x0A>" as SentencePiece has them.
// INVALID_ARGUMENT: neither; the message says what it is.
enum class TokenizerKind { kByteLevel, kByteFallback };
absl::StatusOr<TokenizerKind> KindOfTokenizerJson(const JsonObject& tokenizer);

// Appends tokenizer.ggml.{model,pre,tokens,token_type,merges} of byte-level byte pairs. `added` are
// the tokens beside the vocabulary, `pre_tokenizer` names the rules or is empty.
// INVALID_ARGUMENT: rules we do not know. DATA_LOSS: it contradicts itself.
absl::Status AddByteLevelKeys(const JsonObject& tokenizer, const std::vector<AddedToken>& added,
                              int64_t vocabulary_size, const std::string& pre_tokenizer,
                              GgufMetadata& metadata);

// Appends tokenizer.ggml.{model,pre,tokens,scores,token_type} of SentencePiece's byte pairs. A
// token's score is the lower the later its merge. INVALID_ARGUMENT: a normalizer that GGUF has no
// key for. DATA_LOSS: it contradicts itself.
absl::Status AddByteFallbackKeys(const JsonObject& tokenizer, const std::vector<AddedToken>& added,
                                 int64_t vocabulary_size, GgufMetadata& metadata);

}  // namespace odmoe
