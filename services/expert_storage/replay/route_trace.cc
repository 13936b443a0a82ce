#include "services/expert_storage/replay/route_trace.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxTraceBytes = kGiB;
constexpr int64_t kMaxPerLayer = 1 << 16;

absl::Status Wrong(const std::string& where, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

absl::Status ReadModel(const JsonObject& json, RouteTrace& trace) {
  if (json.Has("model")) {
    ODMOE_ASSIGN_OR_RETURN(trace.model, json.String("model"));
  }
  ODMOE_ASSIGN_OR_RETURN(const int64_t experts, json.Int("experts", 1, kMaxPerLayer));
  ODMOE_ASSIGN_OR_RETURN(const int64_t layers, json.Int("layers", 1, kMaxPerLayer));
  ODMOE_ASSIGN_OR_RETURN(const int64_t top_k, json.Int("top_k", 1, experts));
  if (experts * layers > ExpertCatalog::kMaxExperts) {
    return Wrong(json.where(), absl::StrCat(layers, " layers of ", experts,
                                            " experts are more experts than ",
                                            ExpertCatalog::kMaxExperts));
  }
  if (json.Has("expert_bytes")) {
    ODMOE_ASSIGN_OR_RETURN(const int64_t bytes, json.Int("expert_bytes", 0, int64_t{1} << 40));
    trace.expert_bytes = static_cast<uint64_t>(bytes);
  }
  trace.expert_count = static_cast<int32_t>(experts);
  trace.layer_count = static_cast<int32_t>(layers);
  trace.top_k = static_cast<int32_t>(top_k);
  return absl::OkStatus();
}

// `seen`: one flag an expert of a layer, all false, and so again afterwards.
absl::StatusOr<std::vector<int32_t>> ReadLayer(const nlohmann::json& list, int32_t expert_count,
                                               const std::string& where, std::vector<bool>& seen) {
  std::vector<int32_t> experts;
  if (list.is_null()) return experts;  // a layer without experts
  absl::Status status;
  if (!list.is_array()) return Wrong(where, "a layer's experts are not a list");
  for (const nlohmann::json& item : list) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() >= static_cast<uint64_t>(expert_count)) {
      status = Wrong(where, absl::StrCat("expected experts below ", expert_count));
      break;
    }
    const int32_t expert = item.get<int32_t>();
    if (seen[expert]) continue;
    seen[expert] = true;
    experts.push_back(expert);
  }
  for (const int32_t expert : experts) seen[expert] = false;
  ODMOE_RETURN_IF_ERROR(status);
  return experts;
}

absl::StatusOr<RouteTrace::Token> ReadToken(const JsonObject& json, const RouteTrace& trace,
                                            std::vector<bool>& seen) {
  RouteTrace::Token token;
  if (json.Has("phase")) {
    ODMOE_ASSIGN_OR_RETURN(const std::string phase, json.String("phase"));
    if (phase != "prefill" && phase != "decode") {
      return Wrong(json.where(), "phase: expected prefill or decode");
    }
    token.prefill = phase == "prefill";
  }
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* layers, json.Array("experts"));
  if (layers->size() > static_cast<size_t>(trace.layer_count)) {
    return Wrong(json.where(), absl::StrCat(layers->size(), " layers, expected at most ",
                                            trace.layer_count));
  }
  for (const nlohmann::json& layer : *layers) {
    ODMOE_ASSIGN_OR_RETURN(auto experts,
                           ReadLayer(layer, trace.expert_count, json.where(), seen));
    token.experts.push_back(std::move(experts));
  }
  return token;
}

// What JsonObject calls corrupt is, in a file that a person names, the wrong file.
absl::Status AsArgument(const absl::Status& status) {
  return absl::IsDataLoss(status) ? absl::InvalidArgumentError(status.message()) : status;
}

absl::Status ReadLine(absl::string_view line, const std::string& where, bool first,
                      RouteTrace& trace, std::vector<bool>& seen) {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json value, ParseJson(line, where));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject json, JsonObject::From(value, where));
  if (first) {
    ODMOE_RETURN_IF_ERROR(ReadModel(json, trace));
    seen.resize(trace.expert_count);
    return absl::OkStatus();
  }
  ODMOE_ASSIGN_OR_RETURN(auto token, ReadToken(json, trace, seen));
  trace.tokens.push_back(std::move(token));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RouteTrace> ParseRouteTrace(absl::string_view text, const std::string& source) {
  RouteTrace trace;
  std::vector<bool> seen;
  int64_t number = 0;
  bool first = true;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    const std::string where = absl::StrCat(source, " line ", number);
    ODMOE_RETURN_IF_ERROR(AsArgument(ReadLine(line, where, first, trace, seen)));
    first = false;
  }
  if (first) {
    return Wrong(source, "an empty file is no trace: its first line describes the model, every "
                         "other line a token");
  }
  return trace;
}

absl::StatusOr<RouteTrace> ReadRouteTrace(FileSystem& fs, const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(fs, path, kMaxTraceBytes));
  return ParseRouteTrace(text, path);
}

std::string FormatRouteTrace(const RouteTrace& trace) {
  nlohmann::ordered_json model = {{"model", trace.model},
                                  {"format", "odmoe-route-trace-1"},
                                  {"experts", trace.expert_count},
                                  {"layers", trace.layer_count},
                                  {"top_k", trace.top_k},
                                  {"tokens", trace.tokens.size()},
                                  {"expert_bytes", trace.expert_bytes}};
  constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;
  std::string text = model.dump(-1, ' ', false, kReplace) + "\n";
  for (size_t i = 0; i < trace.tokens.size(); ++i) {
    const RouteTrace::Token& token = trace.tokens[i];
    const nlohmann::ordered_json line = {{"token", i},
                                         {"phase", token.prefill ? "prefill" : "decode"},
                                         {"experts", token.experts}};
    absl::StrAppend(&text, line.dump(), "\n");
  }
  return text;
}

}  // namespace odmoe
