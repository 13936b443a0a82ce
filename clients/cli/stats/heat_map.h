// Layers times experts as a picture of characters.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "services/core/experts/store_telemetry.h"

namespace odmoe {

// What a terminal can show.
struct DrawingStyle {
  bool colours = false;  // xterm's 256
  bool utf8 = false;     // blocks beyond ASCII
};

// A model's heat folded to `rows` x `columns` cells at most: layers downwards, experts to the
// right, neighbours sharing a cell where there are more of them than cells.
struct FoldedHeat {
  struct Cell {
    double demands = 0.0;   // mean of its experts
    double resident = 0.0;  // share of its experts, 0 to 1
    bool empty = true;      // its layers have no such expert
  };
  int rows = 0;
  int columns = 0;
  int layers_per_row = 1;
  int experts_per_column = 1;
  double hottest = 0.0;     // of all cells
  std::vector<Cell> cells;  // row-major
};

// `experts` are the layers' experts in a row, as StoreTelemetry has them; where they are fewer, the
// rest is cold. `rows`, `columns` > 0.
FoldedHeat FoldHeat(absl::Span<const LayerTelemetry> layers, absl::Span<const ExpertHeat> experts,
                    int rows, int columns);

// Lines of `columns` cells after a label of `kHeatLabelColumns` with the row's first layer, then a
// legend; `rows` lines at most. With colours a line has two rows of cells: demands by brightness,
// red to yellow for resident experts, blue to white for others. Without: `.:-=+*#%@` by demands for
// resident experts; for others ',' where there are demands and '!' where many, blank where none.
std::vector<std::string> DrawHeatMap(absl::Span<const LayerTelemetry> layers,
                                     absl::Span<const ExpertHeat> experts, int rows, int columns,
                                     const DrawingStyle& style);

inline constexpr int kHeatLabelColumns = 5;

}  // namespace odmoe
