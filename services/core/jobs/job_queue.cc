#include "services/core/jobs/job_queue.h"

#include <iterator>

namespace odmoe {
namespace {

const std::string kNone;

void AddUnlessEmpty(const std::string& path, std::vector<std::string>& paths) {
  if (!path.empty()) paths.push_back(path);
}

}  // namespace

const std::string& DestinationOf(const StepSpec& step) {
  if (const auto* convert = std::get_if<ConvertSpec>(&step)) return convert->destination;
  if (const auto* merge = std::get_if<MergeSpec>(&step)) return merge->destination;
  if (const auto* quantize = std::get_if<QuantizeSpec>(&step)) return quantize->destination;
  return kNone;
}

std::vector<std::string> SourcesOf(const StepSpec& step) {
  if (const auto* evaluate = std::get_if<EvaluateSpec>(&step)) {
    std::vector<std::string> paths = {evaluate->model, evaluate->text};
    AddUnlessEmpty(evaluate->base_model, paths);
    return paths;
  }
  if (const auto* merge = std::get_if<MergeSpec>(&step)) return {merge->source};
  if (const auto* verify = std::get_if<VerifySpec>(&step)) return {verify->source};
  std::vector<std::string> paths;
  if (const auto* quantize = std::get_if<QuantizeSpec>(&step)) {
    paths.push_back(quantize->source);
    AddUnlessEmpty(quantize->importance, paths);
    AddUnlessEmpty(quantize->text, paths);
    AddUnlessEmpty(quantize->base_model, paths);
    return paths;
  }
  const auto& convert = std::get<ConvertSpec>(step);
  paths.push_back(convert.source);
  AddUnlessEmpty(convert.tensor_map, paths);
  AddUnlessEmpty(convert.base_model, paths);
  return paths;
}

std::string KindOf(const StepSpec& step) {
  static const char* const kKinds[] = {"convert", "merge", "verify", "evaluate", "quantize"};
  static_assert(std::variant_size_v<StepSpec> == std::size(kKinds));
  return kKinds[step.index()];
}

}  // namespace odmoe
