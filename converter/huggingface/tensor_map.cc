#include "converter/huggingface/tensor_map.h"

#include <algorithm>
#include <map>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxMapBytes = uint64_t{16} << 20;
constexpr size_t kListed = 10;  // of the weights that nothing maps
constexpr size_t kMaxHoles = 2;

size_t CountHoles(absl::string_view pattern) {
  size_t holes = 0;
  for (size_t at = 0; (at = pattern.find("{}", at)) != absl::string_view::npos; at += 2) ++holes;
  return holes;
}

// The weights that make one tensor of the output, by the expert they are of.
struct Gathered {
  const MapRule* rule = nullptr;
  bool stacked = false;
  size_t last = 0;  // the place of its last weight in the checkpoint
  std::map<int32_t, const CheckpointTensor*> weights;
};

absl::StatusOr<OutputTensor> Make(const std::string& name, const Gathered& gathered) {
  OutputTensor output;
  output.info.name = name;
  const CheckpointTensor& first = *gathered.weights.begin()->second;
  output.info.ne = {first.shape.rbegin(), first.shape.rend()};
  const auto refused = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(first.path(), ": tensor '", first.name,
                                                   "', mapped to '", name, "', ", what));
  };
  if (name.size() > kMaxGgufNameBytes) {
    return refused(absl::StrCat("has a name of ", name.size(), " bytes; GGUF allows ",
                                kMaxGgufNameBytes));
  }
  if (gathered.stacked) output.info.ne.push_back(static_cast<int64_t>(gathered.weights.size()));
  if (output.info.ne.empty() || output.info.ne.size() > 4 ||
      *std::min_element(output.info.ne.begin(), output.info.ne.end()) < 1) {
    return refused(absl::StrCat("would have the shape [", absl::StrJoin(output.info.ne, ", "),
                                "]; GGUF has 1 to 4 dimensions of at least 1"));
  }
  int32_t expert = 0;
  for (const auto& [number, weight] : gathered.weights) {
    if (gathered.stacked && number != expert++) {
      return refused(absl::StrCat("is one of a stack, whose number ", expert - 1, " is missing"));
    }
    if (weight->shape != first.shape) {
      return refused(absl::StrCat("has shape [", absl::StrJoin(first.shape, ", "), "], and '",
                                  weight->name, "' of its stack has [",
                                  absl::StrJoin(weight->shape, ", "), "]"));
    }
    output.parts.push_back(WholeRows(*weight));
  }
  return output;
}

class NamedArchitecture : public Architecture {
 public:
  NamedArchitecture(std::string name, CheckpointConfig config)
      : Architecture(std::move(config), {}), name_(std::move(name)) {}
  absl::string_view name() const override { return name_; }
  void AddKeys(uint32_t file_type, GgufMetadata& metadata) const override {
    KeyWriter keys(name_, metadata);
    if (config_.num_hidden_layers > 0) {
      AddConfigKeys(config_, file_type, keys);
    } else {
      keys.FileType(file_type);
    }
  }

 private:
  const std::string name_;
};

}  // namespace

absl::StatusOr<TensorMap> TensorMap::Read(FileSystem& fs, const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(fs, path, kMaxMapBytes));
  const auto refused = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
  };
  if (!json.is_object()) return refused("should be an object of patterns and names");
  TensorMap map;
  map.path_ = path;
  std::map<std::string, std::string> by_name;
  for (const auto& [from, to] : json.items()) {
    MapRule rule{.from = from};
    if (!to.is_string() && !to.is_null()) {
      return refused(absl::StrCat("'", from, "' should have a GGUF name, or null to be left out"));
    }
    if (to.is_string()) {
      rule.to = to.get<std::string>();
      const size_t holes = CountHoles(from), filled = CountHoles(*rule.to);
      if (holes > kMaxHoles || (holes != filled && holes != filled + 1)) {
        return refused(absl::StrCat(
            "'", from, "' has ", holes, " holes {} and '", *rule.to, "' ", filled,
            "; they should be as many, or one more where the last is a stack's, and at most two"));
      }
      const auto [other, fresh] = by_name.emplace(*rule.to, from);
      if (!fresh) {
        return refused(absl::StrCat("'", from, "' and '", other->second, "' both become '",
                                    *rule.to, "'"));
      }
    }
    map.rules_.push_back(std::move(rule));
  }
  return map;
}

absl::StatusOr<std::vector<OutputTensor>> TensorMap::Map(const Checkpoint& checkpoint) const {
  std::map<std::string, Gathered> gathered;
  std::vector<std::string> unmapped;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    const MapRule* rule = nullptr;
    std::vector<int32_t> numbers;
    for (const MapRule& candidate : rules_) {
      auto match = MatchName(candidate.from, tensor.name);
      if (!match.has_value()) continue;
      if (rule != nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(path_, ": '", rule->from, "' and '",
                                                       candidate.from, "' both match '",
                                                       tensor.name, "'"));
      }
      rule = &candidate;
      numbers = *std::move(match);
    }
    if (rule == nullptr) unmapped.push_back(tensor.name);
    if (rule == nullptr || !rule->to.has_value()) continue;
    const bool stacked = numbers.size() > CountHoles(*rule->to);
    const std::string name = FillName(*rule->to, numbers);
    Gathered& of_name = gathered[name];
    if (!of_name.weights.emplace(stacked ? numbers.back() : 0, &tensor).second ||
        (of_name.rule != nullptr && of_name.rule != rule)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": '", tensor.name, "' and '",
                       of_name.weights.begin()->second->name, "' both become '", name, "'"));
    }
    of_name.rule = rule;
    of_name.stacked = stacked;
    of_name.last = static_cast<size_t>(&tensor - checkpoint.tensors().data());
  }
  if (!unmapped.empty()) {
    const size_t more = unmapped.size() - std::min(unmapped.size(), kListed);
    if (more > 0) unmapped.resize(kListed);
    return absl::InvalidArgumentError(absl::StrCat(
        path_, " maps none of: ", absl::StrJoin(unmapped, ", "),
        more > 0 ? absl::StrCat(" and ", more, " more") : "",
        ". A pattern with null instead of a name leaves its tensors out"));
  }
  std::vector<std::pair<const std::string, Gathered>*> in_order;
  for (auto& entry : gathered) in_order.push_back(&entry);
  std::sort(in_order.begin(), in_order.end(),
            [](const auto* a, const auto* b) { return a->second.last < b->second.last; });
  std::vector<OutputTensor> outputs;
  for (const auto* entry : in_order) {
    ODMOE_ASSIGN_OR_RETURN(OutputTensor output, Make(entry->first, entry->second));
    outputs.push_back(std::move(output));
  }
  if (outputs.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": leaves nothing to convert"));
  }
  return outputs;
}

std::string TensorMap::Text() const {
  std::string text;
  for (const MapRule& rule : rules_) {
    absl::StrAppend(&text, rule.from, "\n", rule.to.value_or(""), "\n");
  }
  return text;
}

std::unique_ptr<Architecture> MakeNamedArchitecture(const std::string& name,
                                                    const nlohmann::json& config,
                                                    const std::string& where) {
  auto read = ReadCheckpointConfig(config, where, {});
  // In other words than the usual: only the vocabulary's size is needed here.
  if (!read.ok()) {
    read = CheckpointConfig();
    const auto size = config.find("vocab_size");
    if (size != config.end() && size->is_number_unsigned() && size->get<uint64_t>() < (1 << 24)) {
      read->vocab_size = size->get<int64_t>();
    }
  }
  return std::make_unique<NamedArchitecture>(name, *std::move(read));
}

}  // namespace odmoe
