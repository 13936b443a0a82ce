#include "clients/cli/console/progress.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cli/console/table.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

constexpr absl::Duration kRedrawInterval = absl::Milliseconds(100);
constexpr absl::Duration kLineInterval = absl::Seconds(5);
constexpr int kMinBarWidth = 10;
constexpr int kMaxBarWidth = 30;

double Fraction(const ProgressState& state) {
  if (state.total_bytes == 0) return 0.0;
  return std::min(1.0, double(state.done_bytes) / double(state.total_bytes));
}

std::string Label(const ProgressState& state) {
  if (state.step_count <= 1) return state.step;
  return absl::StrFormat("[%d/%d] %s", state.step_number, state.step_count, state.step);
}

std::string Amount(const ProgressState& state) {
  if (state.total_bytes == 0) return FormatBytes(state.done_bytes);
  return absl::StrFormat("%3.0f%%  %s / %s", 100.0 * Fraction(state), FormatBytes(state.done_bytes),
                         FormatBytes(state.total_bytes));
}

std::string Bar(double fraction, int width) {
  const int filled = static_cast<int>(fraction * width);
  return "[" + std::string(filled, '#') + std::string(width - filled, '-') + "]";
}

std::string RateAndTime(const ProgressState& state) {
  std::string text;
  if (state.bytes_per_second.value_or(0.0) > 0.0) {
    text = FormatBytes(static_cast<uint64_t>(*state.bytes_per_second)) + "/s";
  }
  if (state.eta.has_value()) text += (text.empty() ? "ETA " : "  ETA ") + ShortDuration(*state.eta);
  return text;
}

std::string Truncate(std::string text, int columns) {
  size_t bytes = 0;
  for (int shown = 0; bytes < text.size() && shown < columns; ++shown) {
    ++bytes;
    while (bytes < text.size() && (text[bytes] & 0xC0) == 0x80) ++bytes;
  }
  text.resize(bytes);
  return text;
}

int Width(const std::string& text) { return static_cast<int>(DisplayWidth(text)); }

}  // namespace

std::string RenderProgress(const ProgressState& state, int columns) {
  std::string line = Label(state) + "  ";
  const std::string amount = Amount(state);
  const std::string rate = RateAndTime(state);
  int room = columns - Width(line) - Width(amount);
  const bool show_rate = !rate.empty() && room >= Width(rate) + 2;
  if (show_rate) room -= Width(rate) + 2;
  // The bar takes its brackets and two spaces beside its width.
  if (state.total_bytes > 0 && room >= kMinBarWidth + 4) {
    const int width = std::min(kMaxBarWidth, room - 4);
    line += Bar(Fraction(state), width) + "  ";
    room -= width + 4;
  }
  line += amount;
  if (show_rate) line += "  " + rate;
  if (!state.item.empty() && room >= Width(state.item) + 2) line += "  " + state.item;
  return Truncate(std::move(line), columns);
}

ProgressDisplay::ProgressDisplay(Console& console, bool quiet, Clock clock)
    : console_(console),
      mode_(quiet ? Mode::kNone : console.err_is_terminal() ? Mode::kBar : Mode::kLines),
      clock_(std::move(clock)) {}

ProgressDisplay::~ProgressDisplay() { Finish(); }

void ProgressDisplay::Update(ProgressState state) {
  if (mode_ == Mode::kNone) return;
  const absl::Time now = clock_();
  const bool new_step = state.step_number != step_number_ || state.step != step_;
  if (new_step) {
    Finish();
    step_number_ = state.step_number;
    step_ = state.step;
    step_start_ = now;
    step_start_bytes_ = state.done_bytes;
    shown_ = absl::InfinitePast();
    shown_tenth_ = -1;
  }
  MeasureRate(&state, now);
  if (mode_ == Mode::kBar) {
    DrawBar(state, now);
  } else {
    WriteLine(state, now);
  }
}

void ProgressDisplay::Finish() {
  if (skipped_.has_value()) DrawBar(*std::exchange(skipped_, std::nullopt), absl::InfiniteFuture());
  if (bar_open_) console_.Err("\n");
  bar_open_ = false;
}

void ProgressDisplay::MeasureRate(ProgressState* state, absl::Time now) {
  if (state->bytes_per_second.has_value() || state->done_bytes <= step_start_bytes_) return;
  const double seconds = absl::ToDoubleSeconds(now - step_start_);
  if (seconds <= 0.0) return;
  state->bytes_per_second = double(state->done_bytes - step_start_bytes_) / seconds;
  if (state->eta.has_value() || state->total_bytes <= state->done_bytes) return;
  state->eta =
      absl::Seconds(double(state->total_bytes - state->done_bytes) / *state->bytes_per_second);
}

void ProgressDisplay::DrawBar(const ProgressState& state, absl::Time now) {
  if (now - shown_ < kRedrawInterval) {
    skipped_ = state;
    return;
  }
  skipped_.reset();
  // A full line would make some terminals wrap, and the next redraw would start one line too low.
  console_.Err("\r" + RenderProgress(state, console_.columns() - 1) + "\x1b[K");
  shown_ = now;
  bar_open_ = true;
}

void ProgressDisplay::WriteLine(const ProgressState& state, absl::Time now) {
  const int tenth = static_cast<int>(Fraction(state) * 10.0);
  if (tenth <= shown_tenth_ && now - shown_ < kLineInterval) return;
  shown_tenth_ = std::max(tenth, shown_tenth_);
  shown_ = now;
  std::string line = Label(state) + "  " + Amount(state);
  if (const std::string rate = RateAndTime(state); !rate.empty()) line += "  " + rate;
  console_.ErrLine(line);
}

}  // namespace odmoe
