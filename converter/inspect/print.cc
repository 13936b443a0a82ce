#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "converter/inspect/inspect.h"
#include "services/core/base/units.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

// Names come from files that may hold anything.
std::string Quoted(const std::string& text) {
  return JsonQuote(text).value_or("\"(not UTF-8)\"");
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

void AppendSummary(const Inspection& inspection, std::string& out) {
  absl::StrAppendFormat(&out, "%s: %s\n", inspection.path, inspection.kind);
  if (!inspection.architecture.empty()) {
    absl::StrAppendFormat(&out, "architecture  %s\n", inspection.architecture);
  }
  absl::StrAppendFormat(&out, "parameters    %d\n", inspection.parameter_count);
  absl::StrAppendFormat(&out, "weights       %s (%d bytes)\n", FormatBytes(inspection.tensor_bytes),
                        inspection.tensor_bytes);
  if (inspection.experts.empty()) return;
  const uint64_t experts = inspection.expert_bytes();
  absl::StrAppendFormat(&out, "experts       %s (%.1f%% of the weights) in %d layers\n",
                        FormatBytes(experts),
                        100.0 * double(experts) / double(std::max<uint64_t>(
                                                      inspection.tensor_bytes, 1)),
                        inspection.experts.size());
}

void AppendExperts(const Inspection& inspection, std::string& out) {
  if (inspection.experts.empty()) return;
  absl::StrAppend(&out, "\nexperts by layer\n");
  for (const InspectedExperts& layer : inspection.experts) {
    absl::StrAppendFormat(&out, "  layer %3d  %4d x %s  %s  dim %d  ffn %d\n", layer.layer,
                          layer.count, FormatBytes(layer.expert_bytes), layer.format, layer.dim,
                          layer.ffn);
  }
}

}  // namespace

std::string InspectionText(const Inspection& inspection) {
  std::string out;
  AppendSummary(inspection, out);
  absl::StrAppendFormat(&out, "\n%d keys\n", inspection.keys.size());
  for (const InspectedKey& key : inspection.keys) {
    absl::StrAppendFormat(&out, "  %-48s %-8s %s\n", key.key,
                          absl::StrCat(key.type, key.is_array ? "[]" : ""), key.brief);
  }
  AppendExperts(inspection, out);
  absl::StrAppendFormat(&out, "\n%d tensors\n", inspection.tensors.size());
  for (const InspectedTensor& tensor : inspection.tensors) {
    absl::StrAppendFormat(&out, "  %-48s %-6s %-22s %12d%s\n", tensor.name, tensor.format,
                          ShapeText(tensor.shape), tensor.bytes,
                          tensor.file.empty() ? "" : absl::StrCat("  ", tensor.file));
  }
  return out;
}

std::string InspectionJson(const Inspection& inspection) {
  std::string out = absl::StrCat(
      "{\"path\":", Quoted(inspection.path), ",\"kind\":", Quoted(inspection.kind),
      ",\"architecture\":", Quoted(inspection.architecture),
      ",\"tensor_bytes\":", inspection.tensor_bytes,
      ",\"expert_bytes\":", inspection.expert_bytes(),
      ",\"parameter_count\":", inspection.parameter_count, ",\n\"metadata\":{");
  out += absl::StrJoin(inspection.keys, ",\n ", [](std::string* text, const InspectedKey& key) {
    absl::StrAppend(text, Quoted(key.key), ":", key.json);
  });
  out += "},\n\"experts\":[";
  out += absl::StrJoin(
      inspection.experts, ",\n ", [](std::string* text, const InspectedExperts& layer) {
        absl::StrAppend(text, "{\"layer\":", layer.layer, ",\"count\":", layer.count,
                        ",\"format\":", Quoted(layer.format), ",\"dim\":", layer.dim,
                        ",\"ffn\":", layer.ffn, ",\"expert_bytes\":", layer.expert_bytes, "}");
      });
  out += "],\n\"tensors\":[";
  out += absl::StrJoin(
      inspection.tensors, ",\n ", [](std::string* text, const InspectedTensor& tensor) {
        absl::StrAppend(text, "{\"name\":", Quoted(tensor.name),
                        ",\"format\":", Quoted(tensor.format), ",\"shape\":[",
                        absl::StrJoin(tensor.shape, ","), "],\"bytes\":", tensor.bytes);
        if (!tensor.file.empty()) absl::StrAppend(text, ",\"file\":", Quoted(tensor.file));
        *text += "}";
      });
  return out + "]}\n";
}

}  // namespace odmoe
