// A model's perplexity on a text, and its divergence from a base model.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "converter/evaluate/text_statistics.h"
#include "services/core/base/cancellation.h"
#include "services/core/generation/language_model.h"
#include "services/core/io/file.h"

namespace odmoe {

struct EvaluateTextOptions {
  static constexpr int32_t kMinChunkTokens = 8;

  int32_t chunk_tokens = 512;  // kMinChunkTokens to the model's context
  int64_t max_chunks = 0;      // 0: as many as the text has
  // What to compare with, at most one: a model that reads the same tokens, or a file that one has
  // left (see logits_file.h), whose tokens then replace the text.
  LanguageModel* base = nullptr;
  std::string base_logits;
  std::string save_logits;            // leaves such a file of this model, or ""
  FileSystem* file_system = nullptr;  // null: PosixFileSystem()
};

struct TextProgress {
  int64_t done_chunks = 0;
  int64_t total_chunks = 0;
  double perplexity = 0.0;  // so far; 0 at first
};

struct TextReport {
  int32_t chunk_tokens = 0;
  int64_t chunks = 0;
  int64_t scored = 0;              // tokens whose probability counts
  Estimate perplexity;
  double tokens_per_second = 0.0;  // this model reading the chunks
  std::optional<DivergenceReport> divergence;
};

// The reference tool's definition: the text's tokens are cut into chunks of chunk_tokens, what is
// left over is dropped, each chunk starts anew, with BOS in place of its first token where the
// model adds one, and the tokens in a chunk's second half are scored: from position n/2 + 1 on, as
// the first half is context. With a base model, keeps a chunk's worth of its log-probabilities:
// half a chunk times the vocabulary in floats.
// INVALID_ARGUMENT: an option out of range, fewer tokens than two chunks (the counts are named), a
// base with another vocabulary or other tokens. UNIMPLEMENTED: a model that gives no logits, as one
// in another process. DATA_LOSS: logits that are not numbers. CANCELLED. Errors of the models and
// files.
absl::StatusOr<TextReport> EvaluateText(
    LanguageModel& model, absl::string_view text, const EvaluateTextOptions& options,
    const Cancellation* cancellation, const std::function<void(const TextProgress&)>& on_progress);

// A text's tokens as evaluations and importance matrices take them: plain, behind the model's BOS
// if it adds one.
struct PlainTokens {
  std::vector<TokenId> tokens;
  std::optional<TokenId> bos;
};
absl::StatusOr<PlainTokens> TokenizePlainly(LanguageModel& model, absl::string_view text);

// How many chunks of `chunk_tokens` there are, at most `max_chunks` where that is not 0.
// INVALID_ARGUMENT: a chunk is shorter than kMinChunkTokens or longer than the model's context, or
// there are fewer tokens than two chunks.
absl::StatusOr<int64_t> CountChunks(const ModelInfo& info, size_t tokens, int32_t chunk_tokens,
                                    int64_t max_chunks);

}  // namespace odmoe
