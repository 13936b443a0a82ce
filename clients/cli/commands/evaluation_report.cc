#include "clients/cli/commands/evaluation_report.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/console/table.h"

namespace odmoe {
namespace {

Json ToJson(const Estimate& estimate) {
  return Json{{"value", estimate.value}, {"error", estimate.error}};
}

Json ToJson(const Percentiles& p) {
  return Json{{"minimum", p.minimum}, {"0.1", p.p0_1}, {"1", p.p1},   {"5", p.p5},
              {"10", p.p10},          {"25", p.p25},   {"50", p.median}, {"75", p.p75},
              {"90", p.p90},          {"95", p.p95},   {"99", p.p99}, {"99.9", p.p99_9},
              {"maximum", p.maximum}};
}

Json ToJson(const DivergenceReport& report) {
  Json json;
  json["perplexity"] = ToJson(report.perplexity);
  json["base_perplexity"] = ToJson(report.base_perplexity);
  json["log_ratio"] = ToJson(report.log_ratio);
  json["ratio"] = ToJson(report.ratio);
  json["difference"] = ToJson(report.difference);
  json["correlation"] = report.correlation;
  json["kld"] = ToJson(report.kld);
  json["kld_percentiles"] = ToJson(report.kld_percentiles);
  json["delta_p"] = ToJson(report.delta_p);
  json["delta_p_percentiles"] = ToJson(report.delta_p_percentiles);
  json["rms_delta_p"] = ToJson(report.rms_delta_p);
  json["same_top"] = ToJson(report.same_top);
  return json;
}

Json ToJson(const TensorError& tensor) {
  Json json;
  json["name"] = tensor.name;
  json["layer"] = tensor.layer < 0 ? Json(nullptr) : Json(tensor.layer);
  json["base_type"] = Info(tensor.base_dtype).name;
  json["type"] = Info(tensor.dtype).name;
  json["elements"] = tensor.elements;
  json["rmse"] = tensor.rmse;
  json["max_error"] = tensor.max_error;
  json["relative"] = tensor.relative;
  json["cosine"] = tensor.cosine;
  json["worst_block"] = Json{{"matrix", tensor.worst.matrix}, {"row", tensor.worst.row},
                             {"column", tensor.worst.column}, {"rmse", tensor.worst.rmse},
                             {"base", tensor.worst.base},     {"values", tensor.worst.values}};
  return json;
}

std::string Text(int digits, const Estimate& estimate, double unit = 1.0) {
  return absl::StrFormat("%.*f ± %.*f", digits, estimate.value * unit, digits,
                         estimate.error * unit);
}

void AddDivergence(const DivergenceReport& d, Table& table) {
  table.AddRow({"base perplexity", Text(4, d.base_perplexity)});
  table.AddRow({"ln(perplexity / base's)", Text(6, d.log_ratio)});
  table.AddRow({"perplexity / base's", Text(6, d.ratio)});
  table.AddRow({"perplexity - base's", Text(6, d.difference)});
  table.AddRow({"correlation of ln p", absl::StrFormat("%.2f %%", 100.0 * d.correlation)});
  table.AddRow({"mean KL divergence", Text(6, d.kld)});
  const Percentiles& k = d.kld_percentiles;
  const std::pair<const char*, double> klds[] = {
      {"maximum", k.maximum}, {"99.9 %", k.p99_9}, {"99 %", k.p99}, {"95 %", k.p95},
      {"90 %", k.p90},        {"median", k.median}, {"10 %", k.p10}, {"1 %", k.p1},
      {"minimum", k.minimum}};
  for (const auto& [name, value] : klds) {
    table.AddRow({absl::StrCat("  ", name), absl::StrFormat("%.6f", value)});
  }
  table.AddRow({"mean Δp", absl::StrCat(Text(3, d.delta_p, 100.0), " %")});
  const Percentiles& p = d.delta_p_percentiles;
  const std::pair<const char*, double> deltas[] = {
      {"maximum", p.maximum}, {"99 %", p.p99}, {"median", p.median}, {"1 %", p.p1},
      {"minimum", p.minimum}};
  for (const auto& [name, value] : deltas) {
    table.AddRow({absl::StrCat("  ", name), absl::StrFormat("%.3f %%", 100.0 * value)});
  }
  table.AddRow({"RMS Δp", absl::StrCat(Text(3, d.rms_delta_p, 100.0), " %")});
  table.AddRow({"same most likely token", absl::StrCat(Text(3, d.same_top, 100.0), " %")});
}

std::string Place(const TensorError& tensor) {
  return absl::StrFormat("%d/%d/%d", tensor.worst.matrix, tensor.worst.row, tensor.worst.column);
}

std::string LayerName(int32_t layer) { return layer < 0 ? "none" : absl::StrCat(layer); }

}  // namespace

Json ToJson(const TextReport& report) {
  Json json;
  json["chunk_tokens"] = report.chunk_tokens;
  json["chunks"] = report.chunks;
  json["tokens"] = report.scored;
  json["perplexity"] = ToJson(report.perplexity);
  json["tokens_per_second"] = report.tokens_per_second;
  if (report.divergence) json["divergence"] = ToJson(*report.divergence);
  return json;
}

Json ToJson(const TensorReport& report) {
  Json json;
  json["tensors"] = Json::array();
  for (const TensorError& tensor : report.tensors) json["tensors"].push_back(ToJson(tensor));
  json["layers"] = Json::array();
  for (const LayerError& layer : report.layers) {
    json["layers"].push_back(Json{{"layer", layer.layer < 0 ? Json(nullptr) : Json(layer.layer)},
                                  {"elements", layer.elements},
                                  {"rmse", layer.rmse},
                                  {"relative", layer.relative},
                                  {"worst_tensor", layer.worst_tensor}});
  }
  json["only_in_base"] = report.only_in_base;
  json["only_in_model"] = report.only_in_model;
  return json;
}

std::string ToText(const TextReport& report) {
  Table table({{"", Table::Align::kLeft}, {"", Table::Align::kLeft}});
  table.AddRow({"perplexity", Text(4, report.perplexity)});
  table.AddRow({"tokens scored", absl::StrFormat("%d in %d chunks of %d", report.scored,
                                                 report.chunks, report.chunk_tokens)});
  table.AddRow({"tokens per second", absl::StrFormat("%.1f", report.tokens_per_second)});
  if (report.divergence) AddDivergence(*report.divergence, table);
  return table.ToString();
}

std::string ToText(const TensorReport& report, int count) {
  using Align = Table::Align;
  std::vector<const TensorError*> worst;
  for (const TensorError& tensor : report.tensors) worst.push_back(&tensor);
  std::stable_sort(worst.begin(), worst.end(), [](const TensorError* a, const TensorError* b) {
    return a->relative > b->relative;
  });
  if (worst.size() > static_cast<size_t>(count)) worst.resize(count);
  Table tensors({{"tensor"}, {"type"}, {"relative", Align::kRight}, {"RMSE", Align::kRight},
                 {"max", Align::kRight}, {"cosine", Align::kRight}, {"worst block", Align::kRight},
                 {"its RMSE", Align::kRight}});
  for (const TensorError* tensor : worst) {
    tensors.AddRow({tensor->name, std::string(Info(tensor->dtype).name),
                    absl::StrFormat("%.5f", tensor->relative),
                    absl::StrFormat("%.3g", tensor->rmse),
                    absl::StrFormat("%.3g", tensor->max_error),
                    absl::StrFormat("%.6f", tensor->cosine), Place(*tensor),
                    absl::StrFormat("%.3g", tensor->worst.rmse)});
  }
  Table layers({{"layer", Align::kRight}, {"relative", Align::kRight}, {"RMSE", Align::kRight},
                {"worst tensor"}});
  for (const LayerError& layer : report.layers) {
    layers.AddRow({LayerName(layer.layer), absl::StrFormat("%.5f", layer.relative),
                   absl::StrFormat("%.3g", layer.rmse), layer.worst_tensor});
  }
  std::string text = absl::StrCat(tensors.ToString(), "\n", layers.ToString());
  for (const std::string& name : report.only_in_base) {
    absl::StrAppend(&text, "only in the base: ", name, "\n");
  }
  for (const std::string& name : report.only_in_model) {
    absl::StrAppend(&text, "only in the model: ", name, "\n");
  }
  return text;
}

}  // namespace odmoe
