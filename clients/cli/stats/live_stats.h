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
  explicit LiveStats(const DrawingStyle& style) : style_(style) {}

  // Takes what is new of the samples.
  void Add(const std::vector<ServiceSample>& samples);
  // Acts on a key: tab or n next page, p the one before, 1 to 9 that page, r heat from now on.
  // False: q, the end.
  bool OnKey(char key);
  // The page as lines, at most `rows` of `columns` characters each.
  std::vector<std::string> Render(int rows, int columns) const;

 private:
  struct Page {
    std::string title;
    std::string endpoint;
    std::string model;  // empty: the service itself
  };

  std::vector<std::string> RenderService(const ServiceSample& sample) const;

  const DrawingStyle style_;
  std::vector<ServiceSample> samples_;
  std::vector<Page> pages_;
  std::map<std::pair<std::string, std::string>, StoreHistory> histories_;  // by endpoint and model
  std::map<std::string, absl::Time> taken_;  // of the last sample, by endpoint
  std::map<std::string, double> tokens_per_second_;
  size_t shown_ = 0;
};

}  // namespace odmoe
