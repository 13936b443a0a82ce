#include "clients/cli/model/route_recording.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "clients/cli/exit_code.h"
#include "services/core/base/status_macros.h"
#include "services/expert_storage/replay/route_trace.h"

namespace odmoe {

absl::Status CheckTraceFlag(const std::string& trace, const ModelOptions& model) {
  if (trace.empty() || model.endpoint.empty()) return absl::OkStatus();
  return UsageError(
      "--trace records a model in this process: leave out --endpoint (or unset ODMOE_ENDPOINT)");
}

absl::StatusOr<std::unique_ptr<RouteRecording>> RouteRecording::Start(
    const std::string& path, const std::string& model, const ExpertCatalog& catalog) {
  if (catalog.expert_count() == 0) {
    return absl::InvalidArgumentError("a model without routed experts has no routing to record");
  }
  ODMOE_ASSIGN_OR_RETURN(auto file, AtomicFile::Create(PosixFileSystem(), path));
  return absl::WrapUnique(new RouteRecording(model, catalog, std::move(file)));
}

absl::Status RouteRecording::Finish(const ChosenExperts& chosen, size_t prefill_tokens) {
  const std::vector<LayerExperts>& layers = catalog_.layers();
  RouteTrace trace;
  trace.model = model_;
  trace.layer_count = static_cast<int32_t>(layers.size());
  trace.expert_bytes = catalog_.max_expert_bytes();
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    trace.expert_count = std::max(trace.expert_count, layers[layer].expert_count);
    const auto found = chosen.find(layers[layer].layer);
    if (found == chosen.end()) continue;
    const std::vector<std::vector<int32_t>>& tokens = found->second;
    if (tokens.size() > trace.tokens.size()) trace.tokens.resize(tokens.size());
    for (size_t token = 0; token < tokens.size(); ++token) {
      trace.top_k = std::max(trace.top_k, static_cast<int32_t>(tokens[token].size()));
      trace.tokens[token].experts.resize(layers.size());
      trace.tokens[token].experts[layer] = tokens[token];
    }
  }
  for (size_t token = 0; token < trace.tokens.size(); ++token) {
    trace.tokens[token].prefill = token < prefill_tokens;
  }
  ODMOE_RETURN_IF_ERROR(file_->file().Append(FormatRouteTrace(trace)));
  return file_->Commit();
}

}  // namespace odmoe
