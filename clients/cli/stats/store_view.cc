#include "clients/cli/stats/store_view.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "clients/cli/console/table.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

constexpr int kNameColumns = 10;
constexpr int kMostUsers = 6;  // tenants and clients shown, of each
constexpr int kLeastHeatRows = 4;

double Share(double part, double whole) { return whole > 0.0 ? part / whole : 0.0; }
std::string Percent(double share) { return absl::StrFormat("%.1f%%", 100.0 * share); }
std::string BytesRate(double bytes) {
  return absl::StrCat(FormatBytes(static_cast<uint64_t>(std::max(0.0, bytes))), "/s");
}
std::string Micros(double us) {
  return us < 1000.0 ? absl::StrFormat("%.0fus", us) : ShortDuration(absl::Microseconds(us));
}

std::string Bar(double share, int columns, bool utf8) {
  const int full = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * columns));
  std::string bar;
  for (int i = 0; i < columns; ++i) {
    bar += i < full ? (utf8 ? "\u2588" : "#") : (utf8 ? "\u2591" : ".");
  }
  return bar;
}

class Page {
 public:
  explicit Page(int columns) : columns_(columns) {}

  void Line(const std::string& name, const std::string& text) {
    lines_.push_back(Cut(absl::StrFormat("%-*s%s", kNameColumns, name, text)));
  }
  void Raw(std::string line) { lines_.push_back(std::move(line)); }
  void Text(const std::string& text) {
    for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      lines_.push_back(Cut(std::string(line)));
    }
  }
  int rows() const { return static_cast<int>(lines_.size()); }
  std::vector<std::string> Take(int rows) {
    if (this->rows() > rows) lines_.resize(std::max(0, rows));
    return std::move(lines_);
  }

 private:
  std::string Cut(const std::string& line) const {
    size_t bytes = 0;
    for (int characters = 0; bytes < line.size(); ++bytes) {
      if ((line[bytes] & 0xC0) != 0x80 && ++characters > columns_) break;
    }
    return line.substr(0, bytes);
  }

  const int columns_;
  std::vector<std::string> lines_;
};

void AddFigures(const StoreHistory& history, int columns, const DrawingStyle& style, Page& page) {
  const StoreStats& s = history.latest().store;
  const StoreTelemetry& t = history.latest().telemetry;
  const StoreRates& r = history.rates();
  const double filled = Share(double(s.resident_bytes), double(s.budget_bytes));
  page.Line("memory", absl::StrFormat("%s %s of %s: %d experts of %d slots, %d pinned",
                                      Bar(filled, 20, style.utf8), FormatBytes(s.resident_bytes),
                                      FormatBytes(s.budget_bytes), s.resident_experts,
                                      s.slot_count, s.pinned_experts));
  const std::string rate = absl::StrFormat(
      "%s now, %s in all  ", Percent(r.hit_rate),
      Percent(Share(double(s.hits), double(s.hits + s.misses))));
  page.Line("hit rate", rate + Sparkline(history.hit_rates(),
                                         columns - kNameColumns - int(DisplayWidth(rate)),
                                         style.utf8));
  page.Line("demands",
            absl::StrFormat("%.0f/s, %.0f/s missed, %.0f/s evicted; stalled %s each second",
                            r.demands, r.misses, r.evictions,
                            ShortDuration(absl::Seconds(r.stall_seconds))));
  page.Line("disk", absl::StrFormat("%s for demands, %s prefetch, %s background; %s to other hosts",
                                    BytesRate(r.read_bytes[0]), BytesRate(r.read_bytes[1]),
                                    BytesRate(r.read_bytes[2]), BytesRate(r.remote_bytes)));
  page.Line("queues", absl::StrFormat("%d reading, %d wait for the disk, %d for a slot, %d to "
                                      "prefetch, %d in the background",
                                      t.reads[0].under_way + t.reads[1].under_way +
                                          t.reads[2].under_way,
                                      t.queues.waiting_for_disk, t.queues.waiting_for_slot,
                                      t.queues.prefetches, t.queues.background));
  page.Line("waits", absl::StrFormat("reads %s; stalls %s", Percentiles(t.reads[0].latency_us),
                                     Percentiles(t.stall_us)));
  page.Line("prefetch", absl::StrFormat("%d asked, %d read, %d useful, %d wasted, %d dropped",
                                        s.prefetches, s.prefetch_reads, s.prefetch_useful,
                                        s.prefetch_wasted, s.prefetch_dropped));
  page.Line("experts", absl::StrFormat("live %s; idle before eviction %s; back after %s",
                                       Percentiles(t.lifetime_us),
                                       Percentiles(t.idle_before_evict_us),
                                       Percentiles(t.reuse_gap_us)));
  if (!t.shadow_policies.empty()) {
    std::string hits = absl::StrCat(PrintableText(t.policy, 16), " in use; would have hit:");
    for (const ShadowPolicyHits& shadow : t.shadow_policies) {
      absl::StrAppend(&hits, " ", PrintableText(shadow.policy, 16), " ",
                      Percent(Share(double(shadow.hits), double(shadow.demands))));
    }
    page.Line("policy", hits);
  }
  if (t.source.requests_stuck > 0) {
    page.Line("STUCK", absl::StrFormat("%d requests have been at a disk for a second or longer",
                                       t.source.requests_stuck));
  }
  if (s.read_failures + s.checksum_failures > 0) {
    page.Line("FAILURES", absl::StrFormat("%d reads failed, %d experts corrupt", s.read_failures,
                                          s.checksum_failures));
  }
}

std::vector<std::string> UseCells(const UseCounters& use) {
  return {Percent(Share(double(use.hits), double(use.hits + use.misses))),
          absl::StrCat(use.hits + use.misses), FormatBytes(use.bytes_read),
          ShortDuration(absl::Nanoseconds(use.stall_ns)), absl::StrCat(use.failures)};
}

Table UsersTable(std::vector<std::string> first) {
  std::vector<Table::Column> columns;
  for (std::string& title : first) columns.push_back({std::move(title)});
  for (const char* title : {"HIT RATE", "DEMANDS", "READ", "STALLED", "FAILED"}) {
    columns.push_back({title, Table::Align::kRight});
  }
  return Table(std::move(columns));
}

void AddUsers(const StoreTelemetry& t, Page& page) {
  const auto add = [](Table& table, std::vector<std::string> cells, const UseCounters& use) {
    for (std::string& cell : UseCells(use)) cells.push_back(std::move(cell));
    table.AddRow(std::move(cells));
  };
  if (t.tenants.size() > 1) {
    Table table = UsersTable({"TENANT", "CLIENTS", "RESIDENT", "QUOTA", "DISK"});
    for (size_t i = 0; i < t.tenants.size() && i < kMostUsers; ++i) {
      const TenantTelemetry& tenant = t.tenants[i];
      add(table,
          {PrintableText(tenant.name, 24), absl::StrCat(tenant.clients),
           FormatBytes(tenant.resident_bytes),
           tenant.quota_bytes == 0 ? "-" : FormatBytes(tenant.quota_bytes),
           absl::StrFormat("%g", tenant.disk_share)},
          tenant.use);
    }
    page.Text(table.ToString());
  }
  std::vector<const ClientTelemetry*> clients;
  for (const ClientTelemetry& client : t.clients) clients.push_back(&client);
  const auto demands = [](const ClientTelemetry* c) { return c->use.hits + c->use.misses; };
  std::stable_sort(clients.begin(), clients.end(),
                   [&](auto* a, auto* b) { return demands(a) > demands(b); });
  if (clients.empty()) return;
  Table table = UsersTable({"CLIENT", "NAME", "TENANT"});
  for (size_t i = 0; i < clients.size() && i < kMostUsers; ++i) {
    const ClientTelemetry& client = *clients[i];
    add(table,
        {absl::StrCat(client.id), PrintableText(client.name, 24),
         PrintableText(client.tenant, 24)},
        client.use);
  }
  page.Text(table.ToString());
}

double Rate(uint64_t before, uint64_t now, double seconds) {
  return now <= before ? 0.0 : static_cast<double>(now - before) / seconds;
}

}  // namespace

StoreRates StoreRates::Between(const RemoteStoreStats& before, const RemoteStoreStats& now,
                               absl::Duration passed) {
  StoreRates rates;
  const double seconds = absl::ToDoubleSeconds(passed);
  if (before.epoch != now.epoch || seconds <= 0.0) return rates;
  const auto rate = [&](uint64_t StoreStats::*value) {
    return Rate(before.store.*value, now.store.*value, seconds);
  };
  rates.seconds = seconds;
  rates.misses = rate(&StoreStats::misses);
  rates.demands = rate(&StoreStats::hits) + rates.misses;
  rates.hit_rate = Share(rates.demands - rates.misses, rates.demands);
  rates.evictions = rate(&StoreStats::evictions);
  rates.stall_seconds = rate(&StoreStats::stall_ns) * 1e-9;
  for (size_t i = 0; i < kReadCauses; ++i) {
    rates.read_bytes[i] =
        Rate(before.telemetry.reads[i].bytes, now.telemetry.reads[i].bytes, seconds);
  }
  rates.remote_bytes = Rate(before.telemetry.remote_bytes, now.telemetry.remote_bytes, seconds);
  return rates;
}

void StoreHistory::Add(RemoteStoreStats stats, absl::Time taken) {
  const bool same = taken_ != absl::InfinitePast() && stats.epoch == latest_.epoch;
  rates_ = same ? StoreRates::Between(latest_, stats, taken - taken_) : StoreRates();
  if (!same) {
    hit_rates_.clear();
    heat_start_.clear();
  }
  if (rates_.demands > 0.0) hit_rates_.push_back(rates_.hit_rate);
  if (hit_rates_.size() > kMostHitRates) hit_rates_.pop_front();
  latest_ = std::move(stats);
  taken_ = taken;
}

std::vector<ExpertHeat> StoreHistory::heat() const {
  std::vector<ExpertHeat> heat = latest_.telemetry.experts;
  for (size_t i = 0; i < heat.size() && i < heat_start_.size(); ++i) {
    heat[i].demands -= std::min(heat[i].demands, heat_start_[i].demands);
  }
  return heat;
}

void StoreHistory::ResetHeat() { heat_start_ = latest_.telemetry.experts; }

std::string Percentiles(const LogHistogram& histogram_us) {
  if (histogram_us.count() == 0) return "none";
  return absl::StrFormat("p50 %s, p99 %s", Micros(histogram_us.Quantile(0.5)),
                         Micros(histogram_us.Quantile(0.99)));
}

std::string PrintableText(const std::string& text, size_t most) {
  std::string shown;
  for (const char c : text.substr(0, most)) {
    const auto byte = static_cast<unsigned char>(c);
    shown += byte < 0x20 || byte >= 0x7f ? '?' : c;
  }
  return shown;
}

std::string Sparkline(const std::deque<double>& values, int columns, bool utf8) {
  static constexpr std::array<const char*, 8> kBlocks = {"\u2581", "\u2582", "\u2583", "\u2584",
                                                         "\u2585", "\u2586", "\u2587", "\u2588"};
  static constexpr char kLetters[] = "_.-:=+*#";
  std::string line;
  const size_t shown = std::min(values.size(), static_cast<size_t>(std::max(0, columns)));
  for (size_t i = values.size() - shown; i < values.size(); ++i) {
    const auto level = static_cast<size_t>(std::clamp(values[i], 0.0, 1.0) * 7.999);
    line += utf8 ? std::string(kBlocks[level]) : std::string(1, kLetters[level]);
  }
  return line;
}

std::vector<std::string> RenderStore(const StoreHistory& history, int rows, int columns,
                                     const DrawingStyle& style) {
  Page page(columns);
  AddFigures(history, columns, style, page);
  AddUsers(history.latest().telemetry, page);
  const std::vector<ExpertHeat> heat = history.heat();
  const int left = rows - page.rows() - 1;
  if (!heat.empty() && left >= kLeastHeatRows) {
    page.Line("heat", "layers downwards, experts to the right");
    for (std::string& line :
         DrawHeatMap(history.latest().telemetry.layers, heat, left, columns, style)) {
      page.Raw(std::move(line));
    }
  }
  return page.Take(rows);
}

}  // namespace odmoe
