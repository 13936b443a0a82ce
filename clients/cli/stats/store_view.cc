#include "clients/cli/stats/store_view.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "clients/cli/console/table.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

constexpr int kNameColumns = 10;
constexpr int kLeastHeatRows = 4;
constexpr int kRoomyRows = 40;      // where more tenants and clients are shown, and a heading
constexpr int kRoomyColumns = 100;  // where tables have all their columns

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
  // The same of items with commas between, on as many lines as they need.
  void Items(const std::string& name, const std::vector<std::string>& items) {
    std::string line = absl::StrFormat("%-*s", kNameColumns, name);
    for (size_t i = 0; i < items.size(); ++i) {
      const bool last = i + 1 == items.size();
      const auto columns = static_cast<int>(DisplayWidth(line) + DisplayWidth(items[i]));
      if (i > 0 && columns + (last ? 0 : 1) > columns_) {
        lines_.push_back(Cut(line));
        line.assign(kNameColumns, ' ');
      }
      absl::StrAppend(&line, items[i], last ? "" : ", ");
    }
    lines_.push_back(Cut(line));
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
    return std::string(absl::StripTrailingAsciiWhitespace(line.substr(0, bytes)));
  }

  const int columns_;
  std::vector<std::string> lines_;
};

// "4ms/12ms": the median and the 99th percentile.
std::string PercentilePair(const LogHistogram& histogram_us) {
  if (histogram_us.count() == 0) return "-";
  return absl::StrCat(Micros(histogram_us.Quantile(0.5)), "/", Micros(histogram_us.Quantile(0.99)));
}

// What an operator must see first.
void AddAlarms(const StoreStats& s, const StoreTelemetry& t, Page& page) {
  if (t.source.requests_stuck > 0) {
    page.Line("STUCK", absl::StrFormat("%d requests have been at a disk for a second or longer",
                                       t.source.requests_stuck));
  }
  if (s.read_failures + s.checksum_failures > 0) {
    page.Items("FAILURES", {absl::StrCat(s.read_failures, " reads failed"),
                            absl::StrCat(s.checksum_failures, " experts corrupt")});
  }
}

void AddRates(const StoreHistory& history, int columns, const DrawingStyle& style, Page& page) {
  const StoreStats& s = history.latest().store;
  const StoreRates& r = history.rates();
  const double filled = Share(double(s.resident_bytes), double(s.budget_bytes));
  page.Items("memory", {absl::StrCat(Bar(filled, columns < kRoomyColumns ? 10 : 20, style.utf8),
                                     " ", FormatBytes(s.resident_bytes), " of ",
                                     FormatBytes(s.budget_bytes)),
                        absl::StrFormat("%d experts of %d", s.resident_experts, s.slot_count),
                        absl::StrCat(s.pinned_experts, " pinned")});
  const std::string rate = absl::StrFormat(
      "%s now, %s in all  ", r.demands > 0.0 ? Percent(r.hit_rate) : "no demands",
      Percent(Share(double(s.hits), double(s.hits + s.misses))));
  page.Line("hit rate", rate + Sparkline(history.hit_rates(),
                                         columns - kNameColumns - int(DisplayWidth(rate)),
                                         style.utf8));
  page.Items("demands", {absl::StrFormat("%.0f/s", r.demands),
                         absl::StrFormat("%.0f/s missed", r.misses),
                         absl::StrFormat("%.0f/s evicted", r.evictions),
                         absl::StrCat("stalled ", ShortDuration(absl::Seconds(r.stall_seconds)),
                                      " each second")});
  page.Items("disk", {absl::StrCat("demands ", BytesRate(r.read_bytes[0])),
                      absl::StrCat("prefetch ", BytesRate(r.read_bytes[1])),
                      absl::StrCat("background ", BytesRate(r.read_bytes[2])),
                      absl::StrCat("sent ", BytesRate(r.remote_bytes))});
}

void AddFigures(const StoreHistory& history, int columns, const DrawingStyle& style, Page& page) {
  const StoreStats& s = history.latest().store;
  const StoreTelemetry& t = history.latest().telemetry;
  AddAlarms(s, t, page);
  AddRates(history, columns, style, page);
  page.Items("queues",
             {absl::StrCat("reading ", t.reads[0].under_way + t.reads[1].under_way +
                                           t.reads[2].under_way),
              absl::StrCat("wait for disk ", t.queues.waiting_for_disk),
              absl::StrCat("for slot ", t.queues.waiting_for_slot),
              absl::StrCat("to prefetch ", t.queues.prefetches),
              absl::StrCat("background ", t.queues.background)});
  page.Items("p50/p99", {absl::StrCat("reads ", PercentilePair(t.reads[0].latency_us)),
                         absl::StrCat("stalls ", PercentilePair(t.stall_us)),
                         absl::StrCat("lives ", PercentilePair(t.lifetime_us)),
                         absl::StrCat("idle at eviction ", PercentilePair(t.idle_before_evict_us)),
                         absl::StrCat("reuse gaps ", PercentilePair(t.reuse_gap_us))});
  std::vector<std::string> prefetch = {
      absl::StrCat(s.prefetches, " asked"), absl::StrCat(s.prefetch_reads, " read"),
      absl::StrCat(s.prefetch_useful, " useful"), absl::StrCat(s.prefetch_wasted, " wasted"),
      absl::StrCat(s.prefetch_dropped, " dropped")};
  if (t.prefetch.shut_offs > 0) {
    prefetch.push_back(absl::StrFormat("shut off %d times", t.prefetch.shut_offs));
  }
  page.Items("prefetch", prefetch);
  if (t.shadow_policies.empty()) return;
  std::vector<std::string> policies = {PrintableText(t.policy, 16)};
  for (const ShadowPolicyHits& shadow : t.shadow_policies) {
    policies.push_back(absl::StrCat(policies.size() == 1 ? "others would have hit " : "",
                                    PrintableText(shadow.policy, 16), " ",
                                    Percent(Share(double(shadow.hits), double(shadow.demands)))));
  }
  page.Items("policy", policies);
}

std::vector<std::string> UseCells(const UseCounters& use) {
  return {Percent(Share(double(use.hits), double(use.hits + use.misses))),
          absl::StrCat(use.hits + use.misses), FormatBytes(use.bytes_read),
          ShortDuration(absl::Nanoseconds(use.stall_ns)), absl::StrCat(use.failures)};
}

Table UsersTable(std::vector<std::string> first) {
  std::vector<Table::Column> columns;
  for (std::string& title : first) columns.push_back({std::move(title)});
  for (const char* title : {"HITS", "DEMANDS", "READ", "STALLED", "FAILED"}) {
    columns.push_back({title, Table::Align::kRight});
  }
  return Table(std::move(columns));
}

void AddRow(Table& table, std::vector<std::string> cells, const UseCounters& use) {
  for (std::string& cell : UseCells(use)) cells.push_back(std::move(cell));
  table.AddRow(std::move(cells));
}

// The `most` with the most demands.
template <typename User>
std::vector<const User*> Busiest(const std::vector<User>& users, size_t most) {
  std::vector<const User*> sorted;
  for (const User& user : users) sorted.push_back(&user);
  const auto demands = [](const User* user) { return user->use.hits + user->use.misses; };
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](auto* a, auto* b) { return demands(a) > demands(b); });
  if (sorted.size() > most) sorted.resize(most);
  return sorted;
}

void AddTenants(const std::vector<TenantTelemetry>& tenants, size_t most, int columns, Page& page) {
  if (tenants.size() < 2) return;
  const bool roomy = columns >= kRoomyColumns;
  std::vector<std::string> titles = {"TENANT", "RESIDENT", "QUOTA"};
  if (roomy) titles.insert(titles.end(), {"CLIENTS", "WAITING", "SHARE", "STALLS P50/P99"});
  Table table = UsersTable(titles);
  for (const TenantTelemetry* tenant : Busiest(tenants, most)) {
    std::vector<std::string> cells = {
        PrintableText(tenant->name, 24), FormatBytes(tenant->resident_bytes),
        tenant->quota_bytes == 0 ? "-" : FormatBytes(tenant->quota_bytes)};
    if (roomy) {
      cells.insert(cells.end(), {absl::StrCat(tenant->clients), absl::StrCat(tenant->unanswered),
                                 absl::StrFormat("%g", tenant->disk_share),
                                 PercentilePair(tenant->stall_us)});
    }
    AddRow(table, std::move(cells), tenant->use);
  }
  page.Text(table.ToString());
}

// Those that have demanded anything.
void AddClients(const std::vector<ClientTelemetry>& clients, size_t most, Page& page) {
  Table table = UsersTable({"CLIENT", "NAME", "TENANT"});
  bool any = false;
  for (const ClientTelemetry* client : Busiest(clients, most)) {
    if (client->use.hits + client->use.misses == 0) break;
    any = true;
    AddRow(table,
           {absl::StrCat(client->id), PrintableText(client->name, 24),
            PrintableText(client->tenant, 24)},
           client->use);
  }
  if (any) page.Text(table.ToString());
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
  const bool roomy = rows >= kRoomyRows;
  const size_t most = roomy ? 6 : 3;
  AddTenants(history.latest().telemetry.tenants, most, columns, page);
  AddClients(history.latest().telemetry.clients, most, page);
  const std::vector<ExpertHeat> heat = history.heat();
  const int left = rows - page.rows() - (roomy ? 1 : 0);
  if (!heat.empty() && left >= kLeastHeatRows) {
    if (roomy) page.Line("heat", "layers downwards, experts to the right");
    for (std::string& line :
         DrawHeatMap(history.latest().telemetry.layers, heat, left, columns, style)) {
      page.Raw(std::move(line));
    }
  }
  return page.Take(rows);
}

}  // namespace odmoe
