#include "converter/describe_plan.h"

#include <algorithm>
#include <map>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "converter/output/write_output.h"
#include "converter/quantize/encode.h"
#include "services/core/base/available_cores.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kDiskBytesPerSecond = 500'000'000;
// What a worker holds: its buffers, and the rows it is converting.
constexpr uint64_t kBytesPerWorker = 16 * kMiB;
// The program itself, and what it knows of the tensors.
constexpr uint64_t kBaseBytes = 48 * kMiB;
constexpr uint64_t kBytesPerTensor = 2048;

int Workers(const ConvertOptions& options) {
  const int cores = AvailableCores();
  if (options.concurrency > 0) return std::min(options.concurrency, kMaxWorkers);
  return std::min(cores, kMaxDefaultWorkers);
}

std::vector<FormatTotal> Totals(const std::vector<PlannedTensor>& tensors) {
  std::map<std::string, FormatTotal> by_format;
  for (const PlannedTensor& tensor : tensors) {
    FormatTotal& total = by_format[tensor.format];
    total.format = tensor.format;
    ++total.tensors;
    total.bytes += tensor.bytes;
  }
  std::vector<FormatTotal> totals;
  for (auto& [format, total] : by_format) totals.push_back(std::move(total));
  std::stable_sort(totals.begin(), totals.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return totals;
}

// Encoded bytes a second on one thread; 0: a format that is not encoded here.
uint64_t MeasureEncoding(absl::string_view format) {
  const auto info = FindDType(format);
  if (!info.ok()) return 0;
  constexpr size_t kElements = 1 << 20;
  const std::vector<float> values(kElements, 0.5f);
  const auto bytes = RowBytes(info->dtype, kElements);
  if (!bytes.ok()) return 0;
  std::vector<std::byte> encoded(*bytes);
  const absl::Time start = absl::Now();
  if (!EncodeRows(info->dtype, values, kElements, {}, encoded.data()).ok()) return 0;
  const double seconds = std::max(absl::ToDoubleSeconds(absl::Now() - start), 1e-6);
  return static_cast<uint64_t>(static_cast<double>(encoded.size()) / seconds);
}

TimeEstimate EstimateTime(const ConvertPlan& plan, const std::vector<FormatTotal>& totals,
                          uint64_t data_bytes) {
  TimeEstimate time{.disk_bytes_per_second = kDiskBytesPerSecond};
  const bool encodes =
      std::any_of(plan.tensors.begin(), plan.tensors.end(), [](const PlannedTensor& tensor) {
        return tensor.format != tensor.source_format;
      });
  time.seconds = static_cast<double>(data_bytes) / static_cast<double>(kDiskBytesPerSecond);
  if (encodes && !totals.empty()) {
    // The format that most bytes have stands for all.
    time.encode_bytes_per_second = MeasureEncoding(totals[0].format) *
                                   static_cast<uint64_t>(Workers(plan.options));
    if (time.encode_bytes_per_second > 0) {
      time.seconds = std::max(time.seconds, static_cast<double>(data_bytes) /
                                                static_cast<double>(time.encode_bytes_per_second));
    }
  }
  return time;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::string RateText(const TimeEstimate& time) {
  std::string text =
      absl::StrCat("a disk of ", FormatBytes(time.disk_bytes_per_second), "/s assumed");
  if (time.encode_bytes_per_second > 0) {
    absl::StrAppend(&text, ", encoding at ", FormatBytes(time.encode_bytes_per_second),
                    "/s measured");
  }
  return text;
}

}  // namespace

PlanDescription DescribePlan(const ConvertPlan& plan) {
  PlanDescription description;
  description.totals = Totals(plan.tensors);
  for (const FormatTotal& total : description.totals) description.data_bytes += total.bytes;
  description.disk_bytes = plan.disk_bytes;
  description.memory_bytes = kBaseBytes + kBytesPerTensor * plan.tensors.size() +
                             kBytesPerWorker * static_cast<uint64_t>(Workers(plan.options));
  description.time = EstimateTime(plan, description.totals, description.data_bytes);
  return description;
}

std::string PlanText(const ConvertPlan& plan, const PlanDescription& description) {
  std::string out = absl::StrFormat("%d tensors\n", plan.tensors.size());
  for (const PlannedTensor& tensor : plan.tensors) {
    absl::StrAppendFormat(&out, "  %-44s %-9s -> %-7s %-24s %14d\n", tensor.name,
                          tensor.source_format, tensor.format, ShapeText(tensor.shape),
                          tensor.bytes);
  }
  absl::StrAppend(&out, "\nby format\n");
  for (const FormatTotal& total : description.totals) {
    absl::StrAppendFormat(&out, "  %-7s %6d tensors  %s (%d bytes)\n", total.format, total.tensors,
                          FormatBytes(total.bytes), total.bytes);
  }
  absl::StrAppendFormat(&out, "\narchitecture  %s\n", plan.architecture);
  absl::StrAppendFormat(&out, "steps         %s\n", absl::StrJoin(plan.steps, ", "));
  absl::StrAppendFormat(&out, "output        %s\n",
                        absl::StrJoin(plan.outputs, "\n              "));
  absl::StrAppendFormat(&out, "disk          %s (%d bytes)\n", FormatBytes(description.disk_bytes),
                        description.disk_bytes);
  absl::StrAppendFormat(&out, "memory        about %s\n", FormatBytes(description.memory_bytes));
  absl::StrAppendFormat(&out, "time          about %s (%s)\n",
                        ShortDuration(absl::Seconds(description.time.seconds)),
                        RateText(description.time));
  if (!plan.note.empty()) absl::StrAppend(&out, "note          ", plan.note, "\n");
  if (plan.resumed_bytes > 0) {
    absl::StrAppendFormat(&out, "done already  %s\n", FormatBytes(plan.resumed_bytes));
  }
  return out;
}

std::string PlanJson(const ConvertPlan& plan, const PlanDescription& description) {
  Json json;
  json["source"] = plan.options.source;
  json["outputs"] = plan.outputs;
  json["architecture"] = plan.architecture;
  json["steps"] = plan.steps;
  json["data_bytes"] = description.data_bytes;
  json["disk_bytes"] = description.disk_bytes;
  json["memory_bytes"] = description.memory_bytes;
  json["resumed_bytes"] = plan.resumed_bytes;
  if (!plan.note.empty()) json["note"] = plan.note;
  json["seconds"] = description.time.seconds;
  json["disk_bytes_per_second"] = description.time.disk_bytes_per_second;
  json["encode_bytes_per_second"] = description.time.encode_bytes_per_second;
  json["totals"] = Json::array();
  for (const FormatTotal& total : description.totals) {
    json["totals"].push_back(
        Json{{"format", total.format}, {"tensors", total.tensors}, {"bytes", total.bytes}});
  }
  json["tensors"] = Json::array();
  for (const PlannedTensor& tensor : plan.tensors) {
    json["tensors"].push_back(Json{{"name", tensor.name},
                                   {"source_format", tensor.source_format},
                                   {"format", tensor.format},
                                   {"shape", tensor.shape},
                                   {"bytes", tensor.bytes}});
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace odmoe
