#include "clients/cli/commands/replay_report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "clients/cli/console/table.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

constexpr int kPlotRows = 20;      // 5 percent each
constexpr int kPlotColumns = 8;    // of a budget
constexpr const char* kColors[] = {"#d62728", "#1f77b4", "#2ca02c",
                                   "#9467bd", "#ff7f0e", "#7f7f7f"};

double SvgX(size_t index, size_t count) {
  return 70.0 + 560.0 * (static_cast<double>(index) + 0.5) / static_cast<double>(count);
}

double SvgY(double share) { return 60.0 + 320.0 * (1.0 - share); }

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string PercentCell(double share) { return absl::StrFormat("%.1f%%", 100.0 * share); }

std::string WayCell(const ReplayReport::Run& run, const ReplayReport::BudgetRuns& budget) {
  const auto way = ShareOfWay(run.result, budget.lru, budget.belady);
  return way.has_value() ? PercentCell(*way) : "-";
}

double ShareOfBelady(const ReplayResult& result, const ReplayResult& belady) {
  return belady.hits > 0 ? double(result.hits) / double(belady.hits) : 1.0;
}

std::string ReadCell(const ReplayReport& report, const ReplayResult& result) {
  return report.trace.expert_bytes == 0 ? "-" : FormatBytes(result.bytes_read);
}

std::string PerTokenCell(const ReplayReport& report, const ReplayResult& result) {
  if (report.trace.expert_bytes == 0) return "-";
  return FormatBytes(result.bytes_read / static_cast<uint64_t>(result.tokens));
}

void DrawPolicy(const ReplayReport& report, size_t policy, std::string& svg) {
  const char* color = kColors[policy % std::size(kColors)];
  std::string points;
  for (size_t b = 0; b < report.budgets.size(); ++b) {
    const ReplayReport::Run& run = report.budgets[b].runs[policy];
    const double x = SvgX(b, report.budgets.size());
    const double y = SvgY(run.result.hit_rate());
    absl::StrAppendFormat(&points, "%.1f,%.1f ", x, y);
    absl::StrAppendFormat(&svg,
                          "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"><title>%s at %s: "
                          "%s</title></circle>\n",
                          x, y, color, run.policy.name(),
                          Escaped(report.budgets[b].budget.text),
                          PercentCell(run.result.hit_rate()));
  }
  absl::StrAppendFormat(&svg, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\"/>\n", points,
                        color);
  const double y = 70.0 + 20.0 * static_cast<double>(policy);
  absl::StrAppendFormat(&svg, "<circle cx=\"652\" cy=\"%.1f\" r=\"5\" fill=\"%s\"/>\n", y, color);
  absl::StrAppendFormat(&svg, "<text x=\"664\" y=\"%.1f\" font-size=\"12\">%s</text>\n", y + 4.0,
                        report.budgets[0].runs[policy].policy.name());
}

}  // namespace

std::string ReplayTitle(const ReplayReport& report) {
  const RouteTrace& trace = report.trace;
  const ReplayResult& any = report.budgets[0].lru;
  std::string title = absl::StrFormat(
      "%s: %d decoded tokens, %d layers of %d experts, a token demands %d",
      trace.model.empty() ? "trace" : trace.model, any.tokens, trace.layer_count,
      trace.expert_count, trace.demand());
  if (trace.expert_bytes > 0) {
    const uint64_t bytes = trace.expert_bytes * static_cast<uint64_t>(trace.demand());
    absl::StrAppend(&title, " (", FormatBytes(bytes), ")");
  }
  return title;
}

std::string ReplayTable(const ReplayReport& report) {
  using Align = Table::Align;
  Table table({{"budget"},
               {"experts", Align::kRight},
               {"policy"},
               {"hit rate", Align::kRight},
               {"read", Align::kRight},
               {"per token", Align::kRight},
               {"of Belady's hits", Align::kRight},
               {"of the way from LRU", Align::kRight}});
  for (const ReplayReport::BudgetRuns& budget : report.budgets) {
    bool first = true;
    for (const ReplayReport::Run& run : budget.runs) {
      table.AddRow({first ? budget.budget.text : "",
                    first ? absl::StrCat(run.result.slots) : "",
                    run.policy.name(),
                    PercentCell(run.result.hit_rate()),
                    ReadCell(report, run.result),
                    PerTokenCell(report, run.result),
                    PercentCell(ShareOfBelady(run.result, budget.belady)),
                    WayCell(run, budget)});
      first = false;
    }
  }
  return table.ToString();
}

std::string ReplayTextPlot(const ReplayReport& report) {
  if (report.budgets.size() < 2) return "";
  const size_t width = report.budgets.size() * kPlotColumns;
  std::vector<std::string> rows(kPlotRows + 1, std::string(width, ' '));
  std::string legend;
  for (size_t p = 0; p < report.budgets[0].runs.size(); ++p) {
    const char mark = static_cast<char>('a' + p % 26);
    absl::StrAppend(&legend, "  ", std::string(1, mark), " ",
                    report.budgets[0].runs[p].policy.name());
    for (size_t b = 0; b < report.budgets.size(); ++b) {
      const double share = report.budgets[b].runs[p].result.hit_rate();
      std::string& row = rows[kPlotRows - std::lround(share * kPlotRows)];
      // Side by side where several are as good.
      size_t column = b * kPlotColumns + 1;
      while (row[column] != ' ' && column + 1 < (b + 1) * kPlotColumns) ++column;
      row[column] = mark;
    }
  }
  std::string plot;
  for (int r = 0; r <= kPlotRows; ++r) {
    const std::string label = r % 4 == 0 ? absl::StrCat(100 - r * 100 / kPlotRows, "%") : "";
    const size_t end = rows[r].find_last_not_of(' ');
    absl::StrAppendFormat(&plot, "%5s |%s\n", label,
                          end == std::string::npos ? "" : rows[r].substr(0, end + 1));
  }
  absl::StrAppend(&plot, "      +", std::string(width, '-'), "\n       ");
  std::string axis;
  for (const ReplayReport::BudgetRuns& budget : report.budgets) {
    absl::StrAppendFormat(&axis, " %-*s", kPlotColumns - 1,
                          budget.budget.text.substr(0, kPlotColumns - 1));
  }
  absl::StrAppend(&plot, axis.substr(0, axis.find_last_not_of(' ') + 1), "\n");
  return absl::StrCat(plot, "       hit rate over budget:", legend, "\n");
}

std::string ReplaySvg(const ReplayReport& report) {
  std::string svg =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"780\" height=\"440\" "
      "font-family=\"sans-serif\">\n<rect width=\"780\" height=\"440\" fill=\"white\"/>\n";
  absl::StrAppendFormat(&svg, "<text x=\"70\" y=\"32\" font-size=\"15\">%s</text>\n",
                        Escaped(ReplayTitle(report)));
  for (int tick = 0; tick <= 5; ++tick) {
    const double y = SvgY(tick / 5.0);
    absl::StrAppendFormat(&svg, "<line x1=\"70\" y1=\"%.1f\" x2=\"630\" y2=\"%.1f\" "
                                "stroke=\"#ddd\"/>\n<text x=\"64\" y=\"%.1f\" "
                                "text-anchor=\"end\" font-size=\"11\">%d%%</text>\n",
                          y, y, y + 4.0, 20 * tick);
  }
  for (size_t b = 0; b < report.budgets.size(); ++b) {
    absl::StrAppendFormat(&svg, "<text x=\"%.1f\" y=\"398\" text-anchor=\"middle\" "
                                "font-size=\"11\">%s</text>\n",
                          SvgX(b, report.budgets.size()), Escaped(report.budgets[b].budget.text));
  }
  svg += "<text x=\"350\" y=\"422\" text-anchor=\"middle\" font-size=\"12\">budget; hits of all "
         "demands, from an empty cache</text>\n";
  for (size_t p = 0; p < report.budgets[0].runs.size(); ++p) DrawPolicy(report, p, svg);
  return svg + "</svg>\n";
}

Json ReplayJson(const ReplayReport& report) {
  Json replays = Json::array();
  for (const ReplayReport::BudgetRuns& budget : report.budgets) {
    for (const ReplayReport::Run& run : budget.runs) {
      const ReplayResult& result = run.result;
      Json json = {{"policy", run.policy.name()},
                   {"budget", budget.budget.text},
                   {"budget_experts", result.slots},
                   {"accesses", result.accesses},
                   {"hits", result.hits},
                   {"hit_rate", result.hit_rate()},
                   {"bytes_read", result.bytes_read},
                   {"evictions", result.evictions},
                   {"share_of_belady", ShareOfBelady(result, budget.belady)}};
      const auto way = ShareOfWay(result, budget.lru, budget.belady);
      json["share_of_way"] = way.has_value() ? Json(*way) : Json(nullptr);
      json["seconds"] = result.seconds;
      replays.push_back(std::move(json));
    }
  }
  Json document = {{"model", report.trace.model},
                   {"tokens", report.budgets[0].lru.tokens},
                   {"demand_experts", report.trace.demand()},
                   {"expert_bytes", report.trace.expert_bytes}};
  if (replays.size() == 1) document.update(replays[0]);
  document["replays"] = std::move(replays);
  return document;
}

}  // namespace odmoe
