// What the converter knows of a model family: the settings it reads, how its tensors are renamed,
// and its GGUF keys. A family is a table of name rules and a small class, in families/.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "converter/huggingface/config_keys.h"
#include "converter/huggingface/checkpoint_config.h"
#include "converter/huggingface/name_rules.h"
#include "converter/huggingface/output_tensor.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// One model of a family, its configuration checked. Immutable, thread-safe.
class Architecture {
 public:
  virtual ~Architecture() = default;

  // "deepseek2": general.architecture, and what its keys start with.
  virtual absl::string_view name() const = 0;
  const CheckpointConfig& config() const { return config_; }
  // One row a kind of weight; a layer's stacks of experts are written in their rules' order.
  const std::vector<NameRule>& rules() const { return rules_; }

  // Whether the model has this rule's weight in `layer` (any number for RulePlace::kModel): by the
  // rule's place and dimensions, and what the family adds to that.
  bool Has(const NameRule& rule, int64_t layer) const;
  // Weights of layers past the last are something that GGUF's readers do not use.
  virtual bool IgnoresLayersPastTheLast() const { return false; }
  // A head that equals the embedding is left out even where the checkpoint repeats it.
  virtual bool DropsTiedHead() const { return false; }
  // Tensors that are worked out from the configuration; they are written first.
  virtual std::vector<OutputTensor> GeneratedTensors() const { return {}; }

  // What readers of the GGUF file do otherwise than the checkpoint's own code, for people; or "".
  virtual std::string Note() const { return ""; }

  // The architecture's keys, in the order the reference converter writes them; `file_type` belongs
  // among them.
  virtual void AddKeys(uint32_t file_type, GgufMetadata& metadata) const;

 protected:
  Architecture(CheckpointConfig config, std::vector<NameRule> rules)
      : config_(std::move(config)), rules_(std::move(rules)) {}
  virtual bool HasBesides(const NameRule& rule, int64_t layer) const;

  const CheckpointConfig config_;

 private:
  const std::vector<NameRule> rules_;
};

// By config.json's `architectures`; `where` names the file. INVALID_ARGUMENT: a family we do not
// know (the message lists those we do), or settings that GGUF cannot express.
absl::StatusOr<std::unique_ptr<Architecture>> FindArchitecture(const nlohmann::json& config,
                                                               const std::string& where);

// The classes FindArchitecture knows, as Hugging Face names them.
std::vector<absl::string_view> KnownArchitectures();

}  // namespace odmoe
