// odmoe stats on a terminal: a page a model and service, redrawn as news come.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "clients/cli/stats/stats_feed.h"
#include "clients/cli/stats/store_view.h"

namespace odmoe {

// What has been seen of the services so far, and which page is shown. No I/O. Used by one thread.
class LiveStats {
 public:
  // A service from which nothing came for longer than `news_within` is said not to answer.
  LiveStats(const DrawingStyle& style, absl::Duration news_within)
      : style_(style), news_within_(news_within) {}

  // Takes what is new of the samples.
  void Add(const std::vector<ServiceSample>& samples);
  // Acts on a key: tab or n next page, p the one before, 1 to 9 that page, r heat from now on.
  // False: q, the end.
  bool OnKey(char key);
  // The page as lines, at most `rows` of `columns` characters each.
  std::vector<std::string> Render(int rows, int columns, absl::Time now) const;

 private:
  struct Page {
    std::string title;
    std::string endpoint;
    std::string model;  // empty: the service itself
  };

  std::string Header(int columns) const;
  std::vector<std::string> RenderService(const ServiceSample& sample) const;

  const DrawingStyle style_;
  const absl::Duration news_within_;
  std::vector<ServiceSample> samples_;
  std::vector<Page> pages_;
  std::map<std::pair<std::string, std::string>, StoreHistory> histories_;  // by endpoint and model
  std::map<std::string, absl::Time> taken_;  // of the last sample, by endpoint
  std::map<std::string, double> tokens_per_second_;
  size_t shown_ = 0;
};

}  // namespace odmoe
