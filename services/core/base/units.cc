#include "services/core/base/units.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace odmoe {
namespace {

// Bytes a unit stands for; 0: not a unit.
double UnitBytes(absl::string_view unit) {
  const std::string lower = absl::AsciiStrToLower(unit);
  if (lower.empty() || lower == "b") return 1.0;
  if (lower == "k" || lower == "kib") return double(kKiB);
  if (lower == "m" || lower == "mib") return double(kMiB);
  if (lower == "g" || lower == "gib") return double(kGiB);
  if (lower == "t" || lower == "tib") return double(kGiB) * 1024.0;
  if (lower == "kb") return 1e3;
  if (lower == "mb") return 1e6;
  if (lower == "gb") return 1e9;
  if (lower == "tb") return 1e12;
  return 0.0;
}

}  // namespace

absl::StatusOr<uint64_t> ParseByteSize(absl::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
  const size_t digits = trimmed.find_first_not_of("0123456789.");
  const absl::string_view number = trimmed.substr(0, digits);
  const absl::string_view unit =
      digits == absl::string_view::npos ? "" : absl::StripAsciiWhitespace(trimmed.substr(digits));
  double value = 0.0;
  const double unit_bytes = UnitBytes(unit);
  if (number.empty() || !absl::SimpleAtod(number, &value) || unit_bytes == 0.0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not a size in bytes: '", text, "'; write it as 1048576, 512MiB, 1.5GiB or 2GB"));
  }
  const double bytes = value * unit_bytes;
  if (!(bytes < 9.2e18)) {
    return absl::InvalidArgumentError(absl::StrCat("size too large: '", text, "'"));
  }
  return static_cast<uint64_t>(std::llround(bytes));
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < kKiB) return absl::StrCat(bytes, " B");
  static constexpr absl::string_view kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = double(bytes) / 1024.0;
  size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < std::size(kUnits)) {
    value /= 1024.0;
    ++unit;
  }
  return absl::StrFormat("%.2f %s", value, kUnits[unit]);
}

std::string ShortDuration(absl::Duration duration) {
  if (duration < absl::ZeroDuration()) duration = absl::ZeroDuration();
  if (duration < absl::Seconds(1)) {
    return absl::StrFormat("%.0fms", absl::ToDoubleMilliseconds(duration));
  }
  if (duration < absl::Minutes(1)) {
    return absl::StrFormat("%.1fs", absl::ToDoubleSeconds(duration));
  }
  const int64_t seconds = absl::ToInt64Seconds(duration);
  if (seconds < 3600) return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  return absl::StrFormat("%dh%02dm", seconds / 3600, seconds / 60 % 60);
}

}  // namespace odmoe
