#include "clients/cli/jobs/quantize_summary.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/console/table.h"
#include "services/core/base/units.h"

namespace odmoe {

std::string QuantizeSummary(const QuantizeSpec& spec, const StepResult& result) {
  constexpr auto kRight = Table::Align::kRight;
  Table table({{"type"},
               {"size", kRight},
               {"bits/weight", kRight},
               {"perplexity", kRight},
               {"KL divergence", kRight},
               {"same top", kRight},
               {"tokens/s", kRight}});
  for (const std::string& type : spec.types) {
    const auto find = [&](const char* name) {
      return result.metrics.find(absl::StrCat(type, ".", name));
    };
    const auto cell = [&](const char* name, const char* format) -> std::string {
      const auto metric = find(name);
      if (metric == result.metrics.end()) return "-";
      return absl::StrFormat(*absl::ParsedFormat<'f'>::New(format), metric->second);
    };
    const auto bytes = find("bytes");
    table.AddRow({type, bytes == result.metrics.end() ? "-" : FormatBytes(uint64_t(bytes->second)),
                  cell("bits_per_weight", "%.3f"), cell("perplexity", "%.4f"),
                  cell("mean_kld", "%.6f"), cell("same_top", "%.4f"),
                  cell("generated_per_second", "%.1f")});
  }
  return table.ToString();
}

}  // namespace odmoe
