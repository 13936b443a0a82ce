#include "clients/cli/stats/heat_map.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace odmoe {
namespace {

constexpr int kLevels = 9;
constexpr char kRamp[kLevels + 2] = " .:-=+*#%@";
// Of xterm's 256 colours, dark to bright: reds to yellow, and blues to white.
constexpr int kResidentColours[kLevels + 1] = {52, 88, 124, 160, 196, 202, 208, 214, 220, 226};
constexpr int kAbsentColours[kLevels + 1] = {232, 17, 18, 19, 20, 26, 32, 38, 81, 159};
constexpr int kNothing = 0;  // black

int CeilDiv(int value, int by) { return (value + by - 1) / by; }

// 0: none; then by the logarithm of the share of the hottest, 1 to kLevels: demands differ by
// orders of magnitude.
int LevelOf(const FoldedHeat::Cell& cell, double hottest) {
  if (cell.demands <= 0.0 || hottest <= 0.0) return 0;
  const double level = kLevels + 2.0 * std::log2(cell.demands / hottest);
  return std::clamp(static_cast<int>(std::lround(level)), 1, kLevels);
}

int ColourOf(const FoldedHeat& heat, int row, int column) {
  if (row >= heat.rows) return kNothing;
  const FoldedHeat::Cell& cell = heat.cells[row * heat.columns + column];
  if (cell.empty) return kNothing;
  const int level = LevelOf(cell, heat.hottest);
  return cell.resident >= 0.5 ? kResidentColours[level] : kAbsentColours[level];
}

char LetterOf(const FoldedHeat& heat, int row, int column) {
  const FoldedHeat::Cell& cell = heat.cells[row * heat.columns + column];
  if (cell.empty) return ' ';
  const int level = LevelOf(cell, heat.hottest);
  if (cell.resident >= 0.5) return level == 0 ? '_' : kRamp[level];
  return level == 0 ? ' ' : level > kLevels / 2 ? '!' : ',';
}

std::string Label(absl::Span<const LayerTelemetry> layers, const FoldedHeat& heat, int row) {
  const size_t layer = static_cast<size_t>(row) * heat.layers_per_row;
  return absl::StrFormat("%4d ", layers[std::min(layer, layers.size() - 1)].layer);
}

// Two rows of cells a line: the upper half block in one's colour on the other's.
std::string ColouredLine(const FoldedHeat& heat, int row, bool utf8) {
  std::string line;
  int upper = -1;
  int lower = -1;
  for (int column = 0; column < heat.columns; ++column) {
    const int next_upper = ColourOf(heat, row, column);
    const int next_lower = utf8 ? ColourOf(heat, row + 1, column) : next_upper;
    if (next_upper != upper) absl::StrAppend(&line, "\x1b[38;5;", next_upper, "m");
    if (next_lower != lower) absl::StrAppend(&line, "\x1b[48;5;", next_lower, "m");
    upper = next_upper;
    lower = next_lower;
    line += utf8 ? "\u2580" : " ";
  }
  return line + "\x1b[0m";
}

std::string Legend(const FoldedHeat& heat, const DrawingStyle& style) {
  std::string text = style.colours ? "red to yellow: resident, blue to white: not; brighter: more"
                                   : "_.:-=+*#%@ resident, ,! not; further right: more demands";
  if (heat.layers_per_row > 1 || heat.experts_per_column > 1) {
    absl::StrAppend(&text, "; a cell is ", heat.layers_per_row, " x ", heat.experts_per_column);
  }
  return text;
}

}  // namespace

FoldedHeat FoldHeat(absl::Span<const LayerTelemetry> layers, absl::Span<const ExpertHeat> experts,
                    int rows, int columns) {
  FoldedHeat heat;
  int widest = 1;
  for (const LayerTelemetry& layer : layers) {
    widest = std::max(widest, static_cast<int>(std::min<uint64_t>(layer.expert_count, 1 << 24)));
  }
  const int count = static_cast<int>(layers.size());
  heat.layers_per_row = std::max(1, CeilDiv(count, rows));
  heat.experts_per_column = CeilDiv(widest, columns);
  heat.rows = CeilDiv(count, heat.layers_per_row);
  heat.columns = CeilDiv(widest, heat.experts_per_column);
  heat.cells.resize(static_cast<size_t>(heat.rows) * heat.columns);
  std::vector<int> members(heat.cells.size());
  size_t next = 0;
  for (int layer = 0; layer < count; ++layer) {
    for (uint64_t i = 0; i < layers[layer].expert_count && next < experts.size(); ++i, ++next) {
      const size_t cell = static_cast<size_t>(layer / heat.layers_per_row) * heat.columns +
                          i / heat.experts_per_column;
      ++members[cell];
      heat.cells[cell].demands += static_cast<double>(experts[next].demands);
      heat.cells[cell].resident += experts[next].resident ? 1.0 : 0.0;
    }
  }
  for (size_t i = 0; i < heat.cells.size(); ++i) {
    if (members[i] == 0) continue;
    heat.cells[i].empty = false;
    heat.cells[i].demands /= members[i];
    heat.cells[i].resident /= members[i];
    heat.hottest = std::max(heat.hottest, heat.cells[i].demands);
  }
  return heat;
}

std::vector<std::string> DrawHeatMap(absl::Span<const LayerTelemetry> layers,
                                     absl::Span<const ExpertHeat> experts, int rows, int columns,
                                     const DrawingStyle& style) {
  const int lines = rows - 1;  // the legend's
  const int cells = columns - kHeatLabelColumns;
  if (layers.empty() || experts.empty() || lines < 1 || cells < 1) return {};
  const int rows_a_line = style.colours && style.utf8 ? 2 : 1;
  const FoldedHeat heat = FoldHeat(layers, experts, lines * rows_a_line, cells);
  std::vector<std::string> drawn;
  for (int row = 0; row < heat.rows; row += rows_a_line) {
    std::string line = Label(layers, heat, row);
    if (style.colours) {
      line += ColouredLine(heat, row, style.utf8);
    } else {
      for (int column = 0; column < heat.columns; ++column) line += LetterOf(heat, row, column);
    }
    drawn.push_back(std::move(line));
  }
  drawn.push_back(Legend(heat, style).substr(0, columns));
  return drawn;
}

}  // namespace odmoe
