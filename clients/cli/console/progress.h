// Progress of long work: a bar that redraws itself on a terminal, plain lines elsewhere.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/cli/console/console.h"

namespace odmoe {

// How far the work is. Sizes in bytes.
struct ProgressState {
  std::string step;          // "convert"
  int step_number = 1;       // from 1
  int step_count = 1;
  uint64_t done_bytes = 0;   // of this step
  uint64_t total_bytes = 0;  // 0: not known
  std::string item;          // the tensor or expert at hand
  // Where whoever does the work measures them; else they are measured here.
  std::optional<double> bytes_per_second;
  std::optional<absl::Duration> eta;
};

// One line of at most `columns` characters; parts that do not fit are left out, the item first,
// then the bar, then the rate and the time.
std::string RenderProgress(const ProgressState& state, int columns);

// Shows progress on the console's `err`. Used by one thread at a time.
class ProgressDisplay {
 public:
  enum class Mode { kBar, kLines, kNone };
  using Clock = std::function<absl::Time()>;

  // A bar where `err` is a terminal, else lines; nothing with `quiet`.
  ProgressDisplay(Console& console, bool quiet, Clock clock = absl::Now);
  // Finishes the bar's line.
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  // A bar redraws at most ten times a second; a line is written for each step's start, each tenth
  // of it, and each five seconds.
  void Update(ProgressState state);
  // Ends the bar's line, so that other text may follow. Update may go on after it.
  void Finish();

 private:
  void MeasureRate(ProgressState* state, absl::Time now);
  void DrawBar(const ProgressState& state, absl::Time now);
  void WriteLine(const ProgressState& state, absl::Time now);

  Console& console_;
  const Mode mode_;
  const Clock clock_;
  int step_number_ = 0;               // of the step shown last; 0: none
  std::string step_;                  // its name
  absl::Time step_start_;
  uint64_t step_start_bytes_ = 0;
  absl::Time shown_ = absl::InfinitePast();
  int shown_tenth_ = -1;
  bool bar_open_ = false;
  std::optional<ProgressState> skipped_;  // the newest state not drawn yet
};

}  // namespace odmoe
