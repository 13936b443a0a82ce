// The rules that give a mix's sensitive tensors more bits: those of llama.cpp's quantizer (b10018)
// for the mixes we offer. They look at names, at where a layer lies, and at a few numbers of the
// model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "converter/quantize/mix.h"

namespace odmoe {

// Whether a mix changes this tensor's format at all: not vectors, norms, routers, positions and
// other small or sensitive ones, nor what is no weight.
bool IsQuantizable(const GgufTensor& tensor, bool leave_output_tensor);

bool IsOutputTensor(absl::string_view name);
bool IsTokenEmbedding(absl::string_view name);

struct MixRuleOptions {
  Mix mix = Mix::kQ8_0;
  DType dtype = DType::kQ8_0;  // the mix's
  bool has_importance = false;
  std::optional<DType> output_format;  // in place of the rule for the output; tied embeddings too
};

// One pass over a model's tensors. Not thread-safe.
class MixRules {
 public:
  // INVALID_ARGUMENT: numbers of the wrong type in the metadata.
  static absl::StatusOr<MixRules> Create(const MixRuleOptions& options,
                                         const GgufMetadata& metadata,
                                         absl::Span<const GgufTensor> tensors);

  // The format of the next tensor that is quantizable and for which nobody named a format. Some
  // rules count the tensors that have come. INVALID_ARGUMENT: a feed-forward tensor of a model with
  // experts whose layer cannot be told, or is none.
  absl::StatusOr<DType> Next(const GgufTensor& tensor);

 private:
  MixRules() = default;
  DType Output(const GgufTensor& tensor) const;
  DType AttentionValue();
  DType AttentionOutput() const;
  absl::StatusOr<DType> FeedForwardDown(const GgufTensor& tensor);
  DType FalconDown(int64_t layer) const;
  absl::StatusOr<int64_t> LayerOf(const GgufTensor& tensor, int64_t counted) const;

  MixRuleOptions options_;
  bool tied_ = true;  // no output.weight: the embeddings are the output
  bool falcon_ = false;
  bool llama_70b_ = false;
  int64_t layers_ = 0;
  int64_t experts_ = 0;
  int64_t queries_per_key_ = 1;   // attention heads that share a key and value
  int64_t attention_values_ = 0;  // tensors there are
  int64_t values_seen_ = 0;       // that have come
  int64_t downs_seen_ = 0;
};

}  // namespace odmoe
