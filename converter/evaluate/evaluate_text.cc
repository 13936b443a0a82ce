#include "converter/evaluate/evaluate_text.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "converter/evaluate/logits_file.h"
#include "services/core/base/status_macros.h"
#include "services/core/generation/log_sum_exp.h"

namespace odmoe {
namespace {

class TextEvaluation {
 public:
  TextEvaluation(LanguageModel& model, const EvaluateTextOptions& options,
                 const Cancellation* cancellation)
      : model_(model),
        options_(options),
        files_(options.file_system != nullptr ? *options.file_system : PosixFileSystem()) {
    call_.cancellation = cancellation;
  }

  absl::StatusOr<TextReport> Run(absl::string_view text,
                                 const std::function<void(const TextProgress&)>& on_progress) {
    ODMOE_RETURN_IF_ERROR(Prepare(text));
    TextProgress progress;
    progress.total_chunks = report_.chunks;
    for (int64_t chunk = 0; chunk < report_.chunks; ++chunk) {
      if (on_progress) on_progress(progress);
      if (call_.cancellation != nullptr && call_.cancellation->cancelled()) {
        return absl::CancelledError("asked to stop");
      }
      ODMOE_RETURN_IF_ERROR(RunChunk(chunk));
      progress.done_chunks = chunk + 1;
      progress.perplexity = perplexity_.Perplexity().value;
    }
    if (writer_ != nullptr) ODMOE_RETURN_IF_ERROR(writer_->Finish());
    if (on_progress) on_progress(progress);
    report_.scored = perplexity_.count();
    report_.perplexity = perplexity_.Perplexity();
    const double tokens = static_cast<double>(report_.chunks) * report_.chunk_tokens;
    report_.tokens_per_second = tokens / std::max(absl::ToDoubleSeconds(reading_), 1e-9);
    if (divergence_.count() > 0) report_.divergence = divergence_.Report();
    return std::move(report_);
  }

 private:
  bool has_base() const { return options_.base != nullptr || base_file_ != nullptr; }

  absl::Status Prepare(absl::string_view text) {
    if (options_.base != nullptr && !options_.base_logits.empty()) {
      return absl::InvalidArgumentError("a base model and a file of base logits; give one");
    }
    ODMOE_ASSIGN_OR_RETURN(info_, model_.Info());
    report_.chunk_tokens = options_.chunk_tokens;
    ODMOE_ASSIGN_OR_RETURN(PlainTokens plain, TokenizePlainly(model_, text));
    bos_ = plain.bos;
    tokens_ = std::move(plain.tokens);
    if (!options_.base_logits.empty()) ODMOE_RETURN_IF_ERROR(OpenBaseFile());
    ODMOE_ASSIGN_OR_RETURN(report_.chunks, CountChunks(info_, tokens_.size(), report_.chunk_tokens,
                                                       options_.max_chunks));
    if (options_.base != nullptr) ODMOE_RETURN_IF_ERROR(CheckBase(text));
    if (has_base()) {
      base_rows_.resize(static_cast<size_t>(scored().count) * info_.vocabulary_size);
    }
    if (options_.save_logits.empty()) return absl::OkStatus();
    LogitsFileHeader header = {report_.chunk_tokens, info_.vocabulary_size,
                               static_cast<int32_t>(report_.chunks), {}};
    header.tokens.assign(tokens_.begin(),
                         tokens_.begin() + report_.chunks * report_.chunk_tokens);
    ODMOE_ASSIGN_OR_RETURN(writer_,
                           LogitsFileWriter::Create(files_, options_.save_logits, header));
    return absl::OkStatus();
  }

  absl::Status OpenBaseFile() {
    ODMOE_ASSIGN_OR_RETURN(auto file, files_.OpenForRead(options_.base_logits));
    ODMOE_ASSIGN_OR_RETURN(base_file_, LogitsFile::Open(std::move(file)));
    const LogitsFileHeader& header = base_file_->header();
    if (header.vocabulary != info_.vocabulary_size) {
      return absl::InvalidArgumentError(absl::StrCat(options_.base_logits, ": a vocabulary of ",
                                                     header.vocabulary, ", the model has ",
                                                     info_.vocabulary_size));
    }
    report_.chunk_tokens = header.chunk_tokens;
    tokens_ = header.tokens;
    return absl::OkStatus();
  }

  absl::Status CheckBase(absl::string_view text) {
    ODMOE_ASSIGN_OR_RETURN(const ModelInfo base, options_.base->Info());
    if (base.vocabulary_size != info_.vocabulary_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("the base model has a vocabulary of ", base.vocabulary_size,
                       ", the model one of ", info_.vocabulary_size));
    }
    ODMOE_ASSIGN_OR_RETURN(const PlainTokens plain, TokenizePlainly(*options_.base, text));
    if (plain.tokens != tokens_ || plain.bos != bos_) {
      return absl::InvalidArgumentError("the base model cuts the text into other tokens");
    }
    return CountChunks(base, tokens_.size(), report_.chunk_tokens, options_.max_chunks).status();
  }

  ScoredPositions scored() const { return ScoredPositionsOf(report_.chunk_tokens); }
  absl::Span<float> BaseRow(int64_t position) {
    const int64_t vocabulary = info_.vocabulary_size;
    return absl::MakeSpan(base_rows_).subspan((position - scored().first) * vocabulary, vocabulary);
  }

  absl::Status RunChunk(int64_t chunk) {
    const auto begin = tokens_.begin() + chunk * report_.chunk_tokens;
    const std::vector<TokenId> given(begin, begin + report_.chunk_tokens);
    std::vector<TokenId> tokens = given;
    if (bos_.has_value()) tokens[0] = *bos_;
    ODMOE_RETURN_IF_ERROR(ReadBase(chunk, tokens));
    const absl::Time start = absl::Now();
    const absl::Status status = model_.Logits(
        tokens, scored().first, call_, [&](int64_t position, absl::Span<const float> logits) {
          if (position + 1 == report_.chunk_tokens) return absl::OkStatus();
          return Score(position, logits, given[position + 1]);
        });
    reading_ += absl::Now() - start;
    return status;
  }

  // The base's log-probabilities of a chunk to base_rows_.
  absl::Status ReadBase(int64_t chunk, const std::vector<TokenId>& tokens) {
    if (base_file_ != nullptr) {
      for (int64_t i = 0; i < scored().count; ++i) {
        ODMOE_RETURN_IF_ERROR(base_file_->ReadRow(chunk, i, BaseRow(scored().first + i)));
      }
      return absl::OkStatus();
    }
    if (options_.base == nullptr) return absl::OkStatus();
    return options_.base->Logits(
        tokens, scored().first, call_, [&](int64_t position, absl::Span<const float> logits) {
          if (position + 1 == report_.chunk_tokens) return absl::OkStatus();
          const double log_sum = LogSumExp(logits);
          if (!std::isfinite(log_sum)) return NotNumbers("base model", position);
          const absl::Span<float> row = BaseRow(position);
          for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(logits[i] - log_sum);
          return absl::OkStatus();
        });
  }

  absl::Status Score(int64_t position, absl::Span<const float> logits, TokenId next) {
    const double log_sum = LogSumExp(logits);
    if (!std::isfinite(log_sum)) return NotNumbers("model", position);
    perplexity_.Add(log_sum - logits[next]);
    if (writer_ != nullptr) ODMOE_RETURN_IF_ERROR(writer_->Append(logits));
    if (!has_base()) return absl::OkStatus();
    const float floor =
        base_file_ != nullptr ? kLogitsFileFloor : -std::numeric_limits<float>::infinity();
    divergence_.Add(BaseRow(position), floor, logits, log_sum, next);
    return absl::OkStatus();
  }

  static absl::Status NotNumbers(absl::string_view whose, int64_t position) {
    return absl::DataLossError(absl::StrCat("the ", whose, "'s logits after token ", position,
                                            " of a chunk are not numbers; its weights may be "
                                            "corrupt"));
  }

  LanguageModel& model_;
  const EvaluateTextOptions& options_;
  FileSystem& files_;
  CallOptions call_;
  ModelInfo info_;
  std::vector<TokenId> tokens_;
  std::optional<TokenId> bos_;
  std::unique_ptr<LogitsFile> base_file_;
  std::unique_ptr<LogitsFileWriter> writer_;
  std::vector<float> base_rows_;  // [scored positions, vocabulary]
  PerplexityMeter perplexity_;
  DivergenceMeter divergence_;
  absl::Duration reading_;
  TextReport report_;
};

}  // namespace

absl::StatusOr<PlainTokens> TokenizePlainly(LanguageModel& model, absl::string_view text) {
  // A model's own tokens around a text show by comparison; an EOS behind it is none of the text's.
  constexpr char kAnyText[] = "a";
  ODMOE_ASSIGN_OR_RETURN(
      const std::vector<TokenId> bare,
      model.Tokenize(kAnyText, {.add_special = false, .parse_special = false}));
  ODMOE_ASSIGN_OR_RETURN(
      const std::vector<TokenId> whole,
      model.Tokenize(kAnyText, {.add_special = true, .parse_special = false}));
  PlainTokens plain;
  if (whole.size() > bare.size() && (bare.empty() || whole.front() != bare.front())) {
    plain.bos = whole.front();
    plain.tokens.push_back(*plain.bos);
  }
  ODMOE_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                         model.Tokenize(text, {.add_special = false, .parse_special = false}));
  plain.tokens.insert(plain.tokens.end(), tokens.begin(), tokens.end());
  return plain;
}

absl::StatusOr<int64_t> CountChunks(const ModelInfo& info, size_t tokens, int32_t chunk_tokens,
                                    int64_t max_chunks) {
  if (chunk_tokens < EvaluateTextOptions::kMinChunkTokens || chunk_tokens > info.context_length) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chunks of ", chunk_tokens, " tokens, expected ", EvaluateTextOptions::kMinChunkTokens,
        " to ", info.context_length, ", the model's context"));
  }
  if (max_chunks < 0) {
    return absl::InvalidArgumentError(absl::StrCat("at most ", max_chunks, " chunks"));
  }
  const int64_t chunks = static_cast<int64_t>(tokens) / chunk_tokens;
  if (chunks < 2) {
    return absl::InvalidArgumentError(absl::StrCat("the text has ", tokens, " tokens, at least ",
                                                   2 * int64_t{chunk_tokens},
                                                   " are needed for chunks of ", chunk_tokens));
  }
  return max_chunks > 0 ? std::min(chunks, max_chunks) : chunks;
}

absl::StatusOr<TextReport> EvaluateText(
    LanguageModel& model, absl::string_view text, const EvaluateTextOptions& options,
    const Cancellation* cancellation,
    const std::function<void(const TextProgress&)>& on_progress) {
  return TextEvaluation(model, options, cancellation).Run(text, on_progress);
}

}  // namespace odmoe
