// Shows what a replay of routing came to.
#pragma once

#include <string>
#include <vector>

#include "clients/cli/json_output.h"
#include "services/expert_storage/replay/replay.h"

namespace odmoe {

// One trace under each of some budgets by each of some policies, LRU and Belady among those run
// though they may not be shown.
struct ReplayReport {
  struct Run {
    ReplayPolicy policy;
    ReplayResult result;
  };
  struct BudgetRuns {
    ReplayBudget budget;
    ReplayResult lru;
    ReplayResult belady;
    std::vector<Run> runs;
  };

  RouteTrace trace;
  std::vector<BudgetRuns> budgets;
};

// What was replayed, in a line.
std::string ReplayTitle(const ReplayReport& report);
// A row for each budget and policy.
std::string ReplayTable(const ReplayReport& report);
// Hit rates over budgets, drawn with characters; empty for fewer than two budgets.
std::string ReplayTextPlot(const ReplayReport& report);
// The same as an SVG document.
std::string ReplaySvg(const ReplayReport& report);
// With a single replay, its fields are the document's own too.
Json ReplayJson(const ReplayReport& report);

}  // namespace odmoe
