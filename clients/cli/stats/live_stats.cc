#include "clients/cli/stats/live_stats.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/console/table.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// The longest that there is room for is shown.
constexpr absl::string_view kKeys[] = {"q quit  tab next  r heat from now", "q quit  tab next",
                                       "q quit"};

std::string CutTo(const std::string& line, int columns) {
  return PrintableText(line, static_cast<size_t>(std::max(0, columns)));
}

double TokensPerSecond(const ServiceSample& before, const ServiceSample& now) {
  const double seconds = absl::ToDoubleSeconds(now.taken - before.taken);
  const auto tokens = now.requests.completion_tokens - before.requests.completion_tokens;
  if (before.taken == absl::InfinitePast() || seconds <= 0.0 || tokens < 0) return 0.0;
  return static_cast<double>(tokens) / seconds;
}

}  // namespace

void LiveStats::Add(const std::vector<ServiceSample>& samples) {
  pages_.clear();
  for (const ServiceSample& sample : samples) {
    absl::Time& taken = taken_.try_emplace(sample.endpoint, absl::InfinitePast()).first->second;
    const bool news = sample.taken > taken;
    taken = sample.taken;
    if (news && sample.inference) {
      const auto before = std::find_if(samples_.begin(), samples_.end(), [&](const auto& old) {
        return old.endpoint == sample.endpoint;
      });
      tokens_per_second_[sample.endpoint] =
          before == samples_.end() ? 0.0 : TokensPerSecond(*before, sample);
    }
    for (const RemoteStoreStats& model : sample.models) {
      if (news) histories_[{sample.endpoint, model.model}].Add(model, sample.taken);
      pages_.push_back({model.model, sample.endpoint, model.model});
    }
    if (sample.models.empty()) pages_.push_back({sample.endpoint, sample.endpoint, ""});
  }
  samples_ = samples;
  shown_ = std::min(shown_, pages_.empty() ? 0 : pages_.size() - 1);
}

bool LiveStats::OnKey(char key) {
  const size_t count = std::max<size_t>(1, pages_.size());
  if (key == 'q' || key == 'Q') return false;
  if (key == '\t' || key == 'n') shown_ = (shown_ + 1) % count;
  if (key == 'p') shown_ = (shown_ + count - 1) % count;
  if (key >= '1' && key <= '9') shown_ = std::min<size_t>(key - '1', count - 1);
  if (key == 'r') {
    for (auto& [id, history] : histories_) history.ResetHeat();
  }
  return true;
}

std::vector<std::string> LiveStats::RenderService(const ServiceSample& sample) const {
  if (!sample.asked) return {"waiting for its first answer"};
  if (!sample.inference) return {sample.status.ok() ? "no model is open" : ""};
  const InferenceStats& s = sample.requests;
  const auto rate = tokens_per_second_.find(sample.endpoint);
  return {absl::StrFormat("requests  %d running, %d waiting, %d ended", s.requests_running,
                          s.requests_waiting, s.requests),
          absl::StrFormat("tokens    %.1f/s; %d of prompts, %d generated",
                          rate == tokens_per_second_.end() ? 0.0 : rate->second, s.prompt_tokens,
                          s.completion_tokens),
          absl::StrFormat("experts   %.1f%% hits of %d; %s read; stalled %s",
                          100.0 * s.experts.hit_rate(), s.experts.hits + s.experts.misses,
                          FormatBytes(s.experts.bytes_read),
                          ShortDuration(absl::Milliseconds(s.experts.stall_ms))),
          absl::StrFormat("predicted %d, recall %.1f%%", s.experts.predicted,
                          100.0 * s.experts.recall()),
          absl::StrFormat("memory    %s at most; up %s", FormatBytes(s.peak_rss_bytes),
                          ShortDuration(s.uptime))};
}

std::string LiveStats::Header(int columns) const {
  std::string header;
  for (size_t i = 0; i < pages_.size(); ++i) {
    absl::StrAppend(&header, i == shown_ ? "[" : " ", i + 1, " ", pages_[i].title,
                    i == shown_ ? "]" : " ", " ");
  }
  if (static_cast<int>(header.size()) > columns && !pages_.empty()) {
    header = absl::StrCat("[", shown_ + 1, "/", pages_.size(), " ", pages_[shown_].title, "] ");
  }
  for (const absl::string_view keys : kKeys) {
    const int gap = columns - static_cast<int>(header.size() + keys.size());
    if (gap < 0) continue;
    absl::StrAppend(&header, std::string(gap, ' '), keys);
    break;
  }
  return CutTo(header, columns);
}

std::vector<std::string> LiveStats::Render(int rows, int columns, absl::Time now) const {
  std::vector<std::string> lines = {Header(columns)};
  if (pages_.empty()) return lines;
  const Page& page = pages_[shown_];
  for (const ServiceSample& sample : samples_) {
    if (sample.endpoint != page.endpoint) continue;
    const auto history = histories_.find({page.endpoint, page.model});
    std::string what = absl::StrCat(sample.inference ? "inference at " : "expert storage at ",
                                    sample.endpoint);
    if (history != histories_.end()) {
      const RemoteStoreStats& latest = history->second.latest();
      absl::StrAppend(&what, ", up ", ShortDuration(latest.uptime), ", ", latest.store.clients,
                      latest.store.clients == 1 ? " client" : " clients", ", peak ",
                      FormatBytes(latest.peak_rss_bytes));
    }
    lines.push_back(CutTo(what, columns));
    if (!sample.status.ok()) {
      lines.push_back(
          CutTo(absl::StrCat("AWAY, trying again: ", sample.status.message()), columns));
    } else if (sample.asked && now - sample.taken > news_within_) {
      lines.push_back(CutTo(absl::StrCat("NO NEWS for ", ShortDuration(now - sample.taken),
                                         ": the service does not answer"),
                            columns));
    }
    const int left = rows - static_cast<int>(lines.size());
    std::vector<std::string> body =
        history != histories_.end() ? RenderStore(history->second, left, columns, style_)
                                    : RenderService(sample);
    for (std::string& line : body) {
      lines.push_back(history != histories_.end() ? std::move(line) : CutTo(line, columns));
    }
  }
  if (static_cast<int>(lines.size()) > rows) lines.resize(std::max(0, rows));
  return lines;
}

}  // namespace odmoe
