// A user's own map of a checkpoint's weights to GGUF's names, for architectures we do not know.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "converter/huggingface/architecture.h"
#include "converter/huggingface/checkpoint.h"
#include "converter/huggingface/output_tensor.h"
#include "services/core/io/file.h"

namespace odmoe {

// One member of the map. `{}` stands for a number. Where `from` has one hole more than `to`, its
// last is the expert's: such weights become one stack.
struct MapRule {
  std::string from;
  std::optional<std::string> to;  // none: the weight is left out
};

class TensorMap {
 public:
  // A JSON object of patterns: {"model.layers.{}.mlp.experts.{}.w1.weight":
  // "blk.{}.ffn_gate_exps.weight", "model.rotary": null}. NOT_FOUND: no such file.
  // INVALID_ARGUMENT: not JSON, not such an object, two patterns to one name, holes that do not
  // fit.
  static absl::StatusOr<TensorMap> Read(FileSystem& fs, const std::string& path);

  // The output's tensors in the checkpoint's order, as MapTensors. INVALID_ARGUMENT: weights that
  // nothing maps (they are listed) or two patterns do, two weights to one name, a name too long,
  // experts that are missing or of different shapes.
  absl::StatusOr<std::vector<OutputTensor>> Map(const Checkpoint& checkpoint) const;

  // What the map says; two maps of the same text do the same.
  std::string Text() const;

 private:
  std::string path_;
  std::vector<MapRule> rules_;
};

// An architecture that is known by name alone: config.json's settings become keys where they are in
// the usual words, all others are for the user to set. Has no rules.
std::unique_ptr<Architecture> MakeNamedArchitecture(const std::string& name,
                                                    const nlohmann::json& config,
                                                    const std::string& where);

}  // namespace odmoe
