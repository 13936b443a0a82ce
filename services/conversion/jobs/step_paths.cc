#include "services/conversion/jobs/step_paths.h"

#include "absl/strings/match.h"

namespace odmoe {
namespace {

void AddOptional(std::vector<StepPath>& paths, const char* field, std::string& path) {
  if (!path.empty()) paths.push_back({field, &path, false});
}

}  // namespace

std::vector<StepPath> PathsOf(StepSpec& step) {
  if (auto* evaluate = std::get_if<EvaluateSpec>(&step)) {
    std::vector<StepPath> paths = {{"model", &evaluate->model, false},
                                   {"text", &evaluate->text, false}};
    AddOptional(paths, "base_model", evaluate->base_model);
    return paths;
  }
  if (auto* merge = std::get_if<MergeSpec>(&step)) {
    return {{"source_path", &merge->source, false},
            {"destination_path", &merge->destination, true}};
  }
  if (auto* verify = std::get_if<VerifySpec>(&step)) {
    return {{"source_path", &verify->source, false}};
  }
  if (auto* quantize = std::get_if<QuantizeSpec>(&step)) {
    std::vector<StepPath> quantized = {{"source_path", &quantize->source, false},
                                       {"destination_path", &quantize->destination, true}};
    AddOptional(quantized, "importance_path", quantize->importance);
    AddOptional(quantized, "text_path", quantize->text);
    AddOptional(quantized, "base_model_path", quantize->base_model);
    return quantized;
  }
  auto& convert = std::get<ConvertSpec>(step);
  std::vector<StepPath> paths = {{"source_path", &convert.source, false},
                                 {"destination_path", &convert.destination, true}};
  AddOptional(paths, "tensor_map", convert.tensor_map);
  AddOptional(paths, "base_model", convert.base_model);
  for (std::string& entry : convert.metadata) {
    if (!absl::StrContains(entry, '=')) paths.push_back({"metadata", &entry, false});
  }
  return paths;
}

StepSpec WithPaths(StepSpec step, const std::vector<PathUse>& paths) {
  const std::vector<StepPath> places = PathsOf(step);
  for (size_t i = 0; i < places.size() && i < paths.size(); ++i) {
    *places[i].path = paths[i].resolved;
  }
  return step;
}

}  // namespace odmoe
