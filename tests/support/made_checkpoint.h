// Tiny checkpoints of every architecture, made from a list of tensors: tests/data/checkpoints.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/support/temporary_directory.h"

namespace odmoe {

// A weight of the checkpoint; its values follow from its name, see MadeTensorData.
struct MadeTensor {
  std::string name;
  std::string dtype;  // as safetensors calls it
  std::vector<int64_t> shape;
  nlohmann::json values;  // "wide": out of f16's range; an array: these; null: made
};

// What one file of tests/data/checkpoints holds, and its checkpoint.
class MadeCheckpoint {
 public:
  // By its name there, "mixtral". The test fails where there is none.
  explicit MadeCheckpoint(const std::string& name);

  nlohmann::json config;            // config.json
  std::vector<MadeTensor> tensors;
  const nlohmann::json& fixture() const { return fixture_; }

  // Null: no such tensor.
  MadeTensor* Find(const std::string& name);
  bool Has(const std::string& name) const;
  // Writes it below `parent`, in a folder of the model's name, which is returned. Files by the
  // names given, all of the tensors in one file.
  std::string Write(const TemporaryDirectory& parent,
                    const std::string& weights = "model.safetensors") const;
  // The same for an adapter, and its base model's config.json in a folder "base" beside it.
  std::string WriteAdapter(const TemporaryDirectory& parent) const;

 private:
  nlohmann::json fixture_;
};

// The bytes of a made weight: the same on every machine.
std::string MadeTensorData(const MadeTensor& tensor);

}  // namespace odmoe
