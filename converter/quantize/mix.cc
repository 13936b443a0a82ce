#include "converter/quantize/mix.h"

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "converter/quantize/encode.h"
#include "converter/quantize/mix_rules.h"
#include "converter/quantize/tensor_pattern.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr MixInfo kMixes[] = {
    {Mix::kTQ1_0, "tq1_0", DType::kTQ1_0},    {Mix::kTQ2_0, "tq2_0", DType::kTQ2_0},
    {Mix::kQ2_K_S, "q2_k_s", DType::kQ2_K},   {Mix::kQ2_K, "q2_k", DType::kQ2_K},
    {Mix::kQ3_K_S, "q3_k_s", DType::kQ3_K},   {Mix::kQ3_K_M, "q3_k_m", DType::kQ3_K},
    {Mix::kQ3_K_L, "q3_k_l", DType::kQ3_K},   {Mix::kMXFP4_MoE, "mxfp4_moe", DType::kMXFP4},
    {Mix::kIQ4_NL, "iq4_nl", DType::kIQ4_NL}, {Mix::kQ4_0, "q4_0", DType::kQ4_0},
    {Mix::kQ4_1, "q4_1", DType::kQ4_1},       {Mix::kQ4_K_S, "q4_k_s", DType::kQ4_K},
    {Mix::kQ4_K_M, "q4_k_m", DType::kQ4_K},   {Mix::kQ5_0, "q5_0", DType::kQ5_0},
    {Mix::kQ5_1, "q5_1", DType::kQ5_1},       {Mix::kQ5_K_S, "q5_k_s", DType::kQ5_K},
    {Mix::kQ5_K_M, "q5_k_m", DType::kQ5_K},   {Mix::kQ6_K, "q6_k", DType::kQ6_K},
    {Mix::kQ8_0, "q8_0", DType::kQ8_0},       {Mix::kF16, "f16", DType::kF16},
    {Mix::kBF16, "bf16", DType::kBF16},       {Mix::kF32, "f32", DType::kF32},
};

std::string MixNames() {
  return absl::StrJoin(
      kMixes, ", ", [](std::string* out, const MixInfo& mix) { absl::StrAppend(out, mix.name); });
}

// Floats and the formats of blocks; not the integers, which are no weights.
bool IsQuantized(DType dtype) { return Info(dtype).block_elements > 1; }

// A format by an option's value. None: the option is not set.
absl::StatusOr<std::optional<DType>> FindFormat(absl::string_view option, const std::string& name) {
  if (name.empty()) return std::nullopt;
  const auto info = FindDType(name);
  if (!info.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(option, ": ", info.status().message()));
  }
  return info->dtype;
}

struct ParsedOptions {
  std::optional<DType> output, token_embedding;
  std::vector<TensorPattern> patterns;
  std::vector<DType> pattern_formats;
};

absl::StatusOr<ParsedOptions> Parse(const MixOptions& options) {
  ParsedOptions parsed;
  ODMOE_ASSIGN_OR_RETURN(parsed.output,
                         FindFormat("output tensor type", options.output_tensor_type));
  ODMOE_ASSIGN_OR_RETURN(parsed.token_embedding,
                         FindFormat("token embedding type", options.token_embedding_type));
  for (const std::string& rule : options.tensor_types) {
    const std::string option = absl::StrCat("tensor type '", rule, "'");
    // As in the reference tool: what is before the first '=' is the expression.
    const size_t equals = rule.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == rule.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(option, ": expected REGEX=FORMAT, as in ffn_down_exps=q6_K"));
    }
    ODMOE_ASSIGN_OR_RETURN(const auto format, FindFormat(option, rule.substr(equals + 1)));
    parsed.pattern_formats.push_back(*format);
    auto pattern = TensorPattern::Compile(rule.substr(0, equals));
    if (!pattern.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(option, ": ", pattern.status().message()));
    }
    parsed.patterns.push_back(*std::move(pattern));
  }
  return parsed;
}

// The format for rows that are not whole blocks of `dtype`. None: there is no such.
std::optional<DType> FallbackOf(DType dtype) {
  switch (dtype) {
    case DType::kIQ1_S:
    case DType::kIQ1_M:
    case DType::kIQ2_XXS:
    case DType::kIQ2_XS:
    case DType::kIQ2_S:
    case DType::kIQ3_XXS:
    case DType::kIQ3_S:
    case DType::kIQ4_XS:
      return DType::kIQ4_NL;
    case DType::kQ2_0:
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kTQ1_0:
    case DType::kTQ2_0:
      return DType::kQ4_0;
    case DType::kQ4_K:
      return DType::kQ5_0;
    case DType::kQ5_K:
      return DType::kQ5_1;
    case DType::kQ6_K:
      return DType::kQ8_0;
    default:
      // As distributed; the source of b10018 gives an error here.
      if (Info(dtype).block_elements <= 32) return DType::kF16;
      return std::nullopt;
  }
}

bool IsWholeBlocks(const GgufTensor& tensor, DType dtype) {
  return tensor.columns() % Info(dtype).block_elements == 0;
}

absl::Status NoFallback(const GgufTensor& tensor, DType dtype, absl::string_view advice) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", tensor.name, "': its rows of ", tensor.columns(), " are not whole ",
                   Info(dtype).name, " blocks of ", Info(dtype).block_elements, "; ", advice));
}

// Chooses for one model, tensor by tensor.
class MixChooser {
 public:
  MixChooser(const MixInfo& mix, const MixOptions& options, const ParsedOptions& parsed,
             MixRules rules)
      : mix_(mix), options_(options), parsed_(parsed), rules_(std::move(rules)) {}

  absl::StatusOr<MixChoice> Choose(const GgufTensor& tensor) {
    MixChoice choice{.dtype = tensor.dtype};
    if (!IsQuantizable(tensor, options_.leave_output_tensor)) return choice;
    ODMOE_ASSIGN_OR_RETURN(choice, ChooseQuantizable(tensor));
    choice.needs_importance = mix_.mix == Mix::kQ2_K_S && choice.dtype == DType::kQ2_K &&
                              !IsTokenEmbedding(tensor.name) && !IsOutputTensor(tensor.name);
    if (choice.dtype == tensor.dtype) return choice;
    if (!CanEncode(choice.dtype)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor '", tensor.name, "': ", Info(choice.dtype).name, " is read, and not written"));
    }
    if (IsQuantized(tensor.dtype) && !options_.allow_requantize) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor '", tensor.name, "' is ", Info(tensor.dtype).name,
          " already: quantizing it again, to ", Info(choice.dtype).name,
          ", adds that format's error to what is lost already; begin with the original weights, or "
          "allow requantizing to do it all the same"));
    }
    return choice;
  }

 private:
  absl::StatusOr<MixChoice> ChooseQuantizable(const GgufTensor& tensor) {
    if (parsed_.token_embedding && IsTokenEmbedding(tensor.name)) {
      return Exactly(tensor, *parsed_.token_embedding);
    }
    if (parsed_.output && IsOutputTensor(tensor.name)) return Exactly(tensor, *parsed_.output);
    if (options_.pure || !IsQuantized(mix_.dtype)) return Exactly(tensor, mix_.dtype);
    for (size_t i = 0; i < parsed_.patterns.size(); ++i) {
      ODMOE_ASSIGN_OR_RETURN(const bool found, parsed_.patterns[i].IsIn(tensor.name));
      if (found) return WithFallback(tensor, parsed_.pattern_formats[i]);
    }
    ODMOE_ASSIGN_OR_RETURN(const DType dtype, rules_.Next(tensor));
    return WithFallback(tensor, dtype);
  }

  static absl::StatusOr<MixChoice> Exactly(const GgufTensor& tensor, DType dtype) {
    if (IsWholeBlocks(tensor, dtype)) return MixChoice{.dtype = dtype};
    return NoFallback(tensor, dtype, "name a format for it, or leave the choice to the mix");
  }

  static absl::StatusOr<MixChoice> WithFallback(const GgufTensor& tensor, DType dtype) {
    if (IsWholeBlocks(tensor, dtype)) return MixChoice{.dtype = dtype};
    const std::optional<DType> fallback = FallbackOf(dtype);
    if (!fallback)
      return NoFallback(tensor, dtype, "there is no format to fall back to; name another");
    return MixChoice{.dtype = IsWholeBlocks(tensor, *fallback) ? *fallback : DType::kF16,
                     .fell_back = true};
  }

  const MixInfo& mix_;
  const MixOptions& options_;
  const ParsedOptions& parsed_;
  MixRules rules_;
};

}  // namespace

absl::Span<const MixInfo> AllMixes() { return kMixes; }

absl::StatusOr<MixInfo> FindMix(absl::string_view name) {
  constexpr std::pair<absl::string_view, absl::string_view> kOtherNames[] = {
      {"q3_k", "q3_k_m"}, {"q4_k", "q4_k_m"}, {"q5_k", "q5_k_m"}};
  absl::string_view meant = name;
  for (const auto& [other, usual] : kOtherNames) {
    if (absl::EqualsIgnoreCase(name, other)) meant = usual;
  }
  for (const MixInfo& mix : kMixes) {
    if (absl::EqualsIgnoreCase(mix.name, meant)) return mix;
  }
  if (absl::StartsWithIgnoreCase(name, "iq")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "type '", name,
        "' is not offered: of the IQ types only iq4_nl is written, as the others are "
        "slow to compute with on CPUs; of about the size are q2_k, q3_k_s and q4_k_s; offered: ",
        MixNames()));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown type '", name, "'; offered: ", MixNames()));
}

absl::Status CheckMixOptions(const MixOptions& options) { return Parse(options).status(); }

absl::StatusOr<std::vector<MixChoice>> ChooseMixFormats(const MixInfo& mix,
                                                        const MixOptions& options,
                                                        bool has_importance,
                                                        const GgufMetadata& metadata,
                                                        absl::Span<const GgufTensor> tensors) {
  ODMOE_ASSIGN_OR_RETURN(const ParsedOptions parsed, Parse(options));
  ODMOE_ASSIGN_OR_RETURN(MixRules rules, MixRules::Create({.mix = mix.mix,
                                                           .dtype = mix.dtype,
                                                           .has_importance = has_importance,
                                                           .output_format = parsed.output},
                                                          metadata, tensors));
  MixChooser chooser(mix, options, parsed, std::move(rules));
  std::vector<MixChoice> choices;
  for (const GgufTensor& tensor : tensors) {
    ODMOE_ASSIGN_OR_RETURN(choices.emplace_back(), chooser.Choose(tensor));
  }
  return choices;
}

}  // namespace odmoe
