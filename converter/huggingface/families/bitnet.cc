// BitNet b1.58: ternary projections, a norm before each block's last projection, and squared ReLU.
// Also DLM's models, which are the same under another class name.
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "converter/huggingface/families/common_rules.h"
#include "converter/huggingface/families/families.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr NameRule SubNorm(const char* from, const char* to, Dim dim) {
  return {from, to, RulePlace::kEveryLayer, {dim}, RuleKind::kCopy, RuleNeed::kOneSpelling};
}

// As Hugging Face spells them, and as the first BitNet models did.
constexpr NameRule kSubNorms[] = {
    SubNorm("model.layers.{}.self_attn.attn_sub_norm.weight", "blk.{}.attn_sub_norm.weight",
            Dim::kQueryHeads),
    SubNorm("model.layers.{}.self_attn.inner_attn_ln.weight", "blk.{}.attn_sub_norm.weight",
            Dim::kQueryHeads),
    SubNorm("model.layers.{}.mlp.ffn_sub_norm.weight", "blk.{}.ffn_sub_norm.weight",
            Dim::kFeedForward),
    SubNorm("model.layers.{}.mlp.ffn_layernorm.weight", "blk.{}.ffn_sub_norm.weight",
            Dim::kFeedForward),
};

class Bitnet : public Architecture {
 public:
  Bitnet(absl::string_view name, CheckpointConfig config)
      : Architecture(std::move(config), JoinRules({ModelRules(), LayerNormRules(), AttentionRules(),
                                                   DenseRules(), kSubNorms})),
        name_(name) {}

  absl::string_view name() const override { return name_; }

  void AddKeys(uint32_t file_type, GgufMetadata& metadata) const override {
    Architecture::AddKeys(file_type, metadata);
    KeyWriter keys(name(), metadata);
    keys.Int("vocab_size", config_.vocab_size);
    keys.Int("rope.dimension_count", config_.HeadWidth());
  }

 protected:
  // No runtime adds biases to ternary layers.
  bool HasBesides(const NameRule& rule, int64_t) const override {
    return !absl::EndsWith(rule.to, ".bias");
  }

 private:
  const absl::string_view name_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Architecture>> MakeBitnet(const nlohmann::json& config,
                                                         const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(CheckpointConfig read,
                         ReadCheckpointConfig(config, where, kDenseRequired));
  // The name decides which activation a reader takes.
  const nlohmann::json activation = config.value("hidden_act", nlohmann::json("relu2"));
  if (activation == "relu2") return std::make_unique<Bitnet>("bitnet-b1.58", std::move(read));
  if (activation == "silu") return std::make_unique<Bitnet>("bitnet", std::move(read));
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": 'hidden_act' should be \"relu2\" or \"silu\" and is ",
                   activation.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
}

}  // namespace odmoe
