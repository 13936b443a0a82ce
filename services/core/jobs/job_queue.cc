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
  const auto& convert = std::get<ConvertSpec>(step);
  std::vector<std::string> paths = {convert.source};
  AddUnlessEmpty(convert.tensor_map, paths);
  AddUnlessEmpty(convert.base_model, paths);
  return paths;
}

std::string KindOf(const StepSpec& step) {
  static const char* const kKinds[] = {"convert", "merge", "verify", "evaluate"};
  static_assert(std::variant_size_v<StepSpec> == std::size(kKinds));
  return kKinds[step.index()];
}

}  // namespace odmoe
