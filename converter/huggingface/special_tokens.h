// The special tokens and the chat template of a checkpoint, as GGUF keys.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/status.h"
#include "converter/huggingface/checkpoint.h"
#include "converter/huggingface/token_list.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// Appends tokenizer.ggml.{bos,eos,...}_token_id and add_{bos,eos,sep}_token. `tokenizer` is
// tokenizer.json, `config` tokenizer_config.json (or an empty object). Ids of `vocabulary_size` or
// more are left out.
void AddSpecialTokenKeys(const Checkpoint& checkpoint, const nlohmann::json& tokenizer,
                         const nlohmann::json& config, const std::vector<AddedToken>& added,
                         int64_t vocabulary_size, GgufMetadata& metadata);

// Appends tokenizer.chat_template, and further named ones, from the first of tokenizer_config.json,
// chat_template.jinja (with additional_chat_templates/) and chat_template.json that has one.
absl::Status AddChatTemplateKeys(const Checkpoint& checkpoint, const nlohmann::json& config,
                                 GgufMetadata& metadata);

// Appends tokenizer.ggml.normalizer.{lowercase,strip_accents} where tokenizer.json's normalizer
// says.
void AddNormalizerKeys(const nlohmann::json& tokenizer, GgufMetadata& metadata);

}  // namespace odmoe
