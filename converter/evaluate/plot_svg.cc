#include "converter/evaluate/plot_svg.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace odmoe {
namespace {

constexpr double kWidth = 900.0;
constexpr double kPanelHeight = 360.0;
constexpr double kLeft = 70.0;
constexpr double kRight = 190.0;  // room for the legend
constexpr double kTop = 48.0;
constexpr double kBottom = 46.0;

struct Group {
  const char* title;
  const char* color;
};
constexpr Group kGroups[] = {{"attention", "#1f77b4"},      {"routed experts", "#d62728"},
                             {"shared experts", "#ff7f0e"}, {"dense network", "#2ca02c"},
                             {"embeddings, head", "#9467bd"}, {"other", "#7f7f7f"}};

const Group& GroupOf(absl::string_view name) {
  if (absl::StrContains(name, ".attn_")) return kGroups[0];
  if (absl::StrContains(name, "_exps.")) return kGroups[1];
  if (absl::StrContains(name, "_shexp.")) return kGroups[2];
  if (absl::StrContains(name, ".ffn_")) return kGroups[3];
  if (!absl::StartsWith(name, "blk.")) return kGroups[4];
  return kGroups[5];
}

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

// A plot area with its axes; data coordinates run from 0 to 1.
class Panel {
 public:
  Panel(std::string& svg, double top, absl::string_view title) : svg_(svg), top_(top) {
    Text(kLeft, top_ + 20.0, "start", 15, title);
    absl::StrAppendFormat(&svg_, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                                 "fill=\"none\" stroke=\"#444\"/>\n",
                          kLeft, top_ + kTop, Width(), Height());
  }

  double X(double share) const { return kLeft + share * Width(); }
  double Y(double share) const { return top_ + kTop + (1.0 - share) * Height(); }

  void Text(double x, double y, const char* anchor, int size, absl::string_view text) {
    absl::StrAppendFormat(
        &svg_, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\">%s</text>\n", x, y,
        anchor, size, Escaped(text));
  }
  void TickX(double share, absl::string_view label) {
    Text(X(share), Y(0.0) + 16.0, "middle", 11, label);
  }
  void TickY(double share, absl::string_view label) {
    Text(kLeft - 6.0, Y(share) + 4.0, "end", 11, label);
    absl::StrAppendFormat(
        &svg_, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", kLeft,
        Y(share), kLeft + Width(), Y(share));
  }
  void LabelX(absl::string_view label) { Text(X(0.5), Y(0.0) + 36.0, "middle", 12, label); }
  void Dot(double x, double y, const char* color, absl::string_view note) {
    absl::StrAppendFormat(&svg_, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\" "
                                 "fill-opacity=\"0.75\"><title>%s</title></circle>\n",
                          X(x), Y(y), color, Escaped(note));
  }
  void Bar(double left, double right, double height, absl::string_view note) {
    absl::StrAppendFormat(&svg_, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                                 "fill=\"#1f77b4\"><title>%s</title></rect>\n",
                          X(left) + 0.5, Y(height), X(right) - X(left) - 1.0, Y(0.0) - Y(height),
                          Escaped(note));
  }
  void LegendEntry(int place, const Group& group) {
    const double x = kWidth - kRight + 20.0;
    const double y = top_ + kTop + 14.0 + 20.0 * place;
    absl::StrAppendFormat(&svg_, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"%s\"/>\n", x, y,
                          group.color);
    Text(x + 12.0, y + 4.0, "start", 12, group.title);
  }
  void Note(int place, absl::string_view text) {
    Text(kWidth - kRight + 15.0, top_ + kTop + 18.0 + 20.0 * place, "start", 12, text);
  }

 private:
  static double Width() { return kWidth - kLeft - kRight; }
  static double Height() { return kPanelHeight - kTop - kBottom; }

  std::string& svg_;
  const double top_;
};

// Whole powers of ten around values that are positive and finite.
struct Decades {
  int low = 0;
  int high = 1;
  double Share(double value) const {
    return std::clamp((std::log10(value) - low) / (high - low), 0.0, 1.0);
  }
};

bool HasLogarithm(double value) { return std::isfinite(value) && value > 0.0; }

Decades DecadesAround(double smallest, double largest) {
  Decades decades;
  decades.low = static_cast<int>(std::floor(std::log10(smallest)));
  decades.high = std::max(decades.low + 1, static_cast<int>(std::ceil(std::log10(largest))));
  return decades;
}

void PlotTensors(const TensorReport& report, double top, std::string& svg) {
  Panel panel(svg, top, "Relative error of each tensor (RMSE over RMS of the base), by layer");
  int32_t last_layer = 0;
  int64_t exact = 0;
  double smallest = 0.0;
  double largest = 0.0;
  for (const TensorError& tensor : report.tensors) {
    last_layer = std::max(last_layer, tensor.layer);
    if (!HasLogarithm(tensor.relative)) {
      ++exact;
      continue;
    }
    smallest = smallest == 0.0 ? tensor.relative : std::min(smallest, tensor.relative);
    largest = std::max(largest, tensor.relative);
  }
  // Column 0 is for what belongs to no layer.
  const double columns = last_layer + 2.0;
  const auto place = [columns](int32_t layer) { return (layer + 1.5) / columns; };
  panel.TickX(place(-1), "none");
  const int32_t step = std::max(1, (last_layer + 1) / 16);
  for (int32_t layer = 0; layer <= last_layer; layer += step) {
    panel.TickX(place(layer), absl::StrCat(layer));
  }
  panel.LabelX("layer");
  int entry = 0;
  for (const Group& group : kGroups) panel.LegendEntry(entry++, group);
  if (exact > 0) panel.Note(entry + 1, absl::StrCat(exact, " tensors without error"));
  if (largest == 0.0) return;
  const Decades decades = DecadesAround(smallest, largest);
  for (int decade = decades.low; decade <= decades.high; ++decade) {
    panel.TickY(decades.Share(std::pow(10.0, decade)), absl::StrCat("1e", decade));
  }
  for (const TensorError& tensor : report.tensors) {
    if (!HasLogarithm(tensor.relative)) continue;
    panel.Dot(place(tensor.layer), decades.Share(tensor.relative), GroupOf(tensor.name).color,
              absl::StrFormat("%s %s: %.3g", tensor.name, Info(tensor.dtype).name,
                              tensor.relative));
  }
}

void PlotDivergence(const DivergenceReport& report, double top, std::string& svg) {
  constexpr int kBinsPerDecade = 4;
  // Below, it is rounding.
  constexpr double kSmallest = 1e-6;
  Panel panel(svg, top, "KL divergence of the positions from the base model");
  panel.Note(0, absl::StrFormat("mean %.6f", report.kld.value));
  panel.Note(1, absl::StrFormat("median %.6f", report.kld_percentiles.median));
  panel.Note(2, absl::StrFormat("99 %%: %.6f", report.kld_percentiles.p99));
  panel.Note(3, absl::StrFormat("same top: %.2f %%", 100.0 * report.same_top.value));
  if (report.klds.empty()) return;
  const Decades decades = DecadesAround(
      kSmallest, std::max(kSmallest, static_cast<double>(report.klds.back())));
  const int bins = (decades.high - decades.low) * kBinsPerDecade;
  std::vector<int64_t> counts(bins);
  int64_t rounding = 0;
  for (const float kld : report.klds) {
    if (!(kld > kSmallest)) ++rounding;
    const double share = kld > kSmallest ? decades.Share(kld) : 0.0;
    ++counts[std::min(bins - 1, static_cast<int>(share * bins))];
  }
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  for (int i = 0; i <= 4; ++i) panel.TickY(i / 4.0 / 1.05, absl::StrCat(most * i / 4));
  for (int decade = decades.low; decade <= decades.high; ++decade) {
    panel.TickX(decades.Share(std::pow(10.0, decade)), absl::StrCat("1e", decade));
  }
  panel.LabelX("KL divergence (nats); the first bar holds all below 1e-6");
  for (int i = 0; i < bins; ++i) {
    if (counts[i] == 0) continue;
    panel.Bar(double(i) / bins, double(i + 1) / bins,
              static_cast<double>(counts[i]) / static_cast<double>(most) / 1.05,
              absl::StrCat(counts[i], " positions"));
  }
  if (rounding > 0) panel.Note(4, absl::StrCat(rounding, " below 1e-6"));
}

}  // namespace

std::string PlotSvg(const EvaluationPlot& plot) {
  constexpr double kHeading = 36.0;
  const int panels = (plot.tensors != nullptr) + (plot.divergence != nullptr);
  const double height = kHeading + kPanelHeight * panels;
  std::string svg;
  absl::StrAppendFormat(&svg,
                        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
                        "viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\">\n"
                        "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
                        "<text x=\"%.0f\" y=\"24\" font-size=\"17\">%s</text>\n",
                        kWidth, height, kWidth, height, kLeft, Escaped(plot.title));
  double top = kHeading;
  if (plot.tensors != nullptr) {
    PlotTensors(*plot.tensors, top, svg);
    top += kPanelHeight;
  }
  if (plot.divergence != nullptr) PlotDivergence(*plot.divergence, top, svg);
  return svg + "</svg>\n";
}

}  // namespace odmoe
