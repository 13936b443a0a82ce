// Counters, gauges and histograms as the text that Prometheus collects.
#pragma once

#include <prometheus/metric_family.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "services/core/base/log_histogram.h"

namespace odmoe {

// Metrics in the making, family by family, each in base units (seconds, bytes). Used by one thread.
class MetricFamilies {
 public:
  using Type = prometheus::MetricType;
  using Labels = std::vector<prometheus::ClientMetric::Label>;

  // Every family's name begins with `prefix`, "odmoe_inference_" say.
  explicit MetricFamilies(std::string prefix) : prefix_(std::move(prefix)) {}

  // Starts a family; Add puts metrics into it. Names are distinct.
  void Begin(Type type, const std::string& name, const std::string& help);

  // One metric of a family of counters or gauges. Labels that are not UTF-8 are made so.
  void Add(Labels labels, double value);
  // One of a family of histograms. `unit`: what the histogram's 1 is in the metric's unit. Of its
  // buckets one in `every` is told: two are powers of four, which are enough to see a distribution
  // move.
  void Add(Labels labels, const LogHistogram& histogram, double unit, size_t every = 2);

  // A family of one counter or gauge without labels.
  void AddOne(Type type, const std::string& name, const std::string& help, double value);

  // In the text exposition format.
  std::string Text() const;

 private:
  const std::string prefix_;
  std::vector<prometheus::MetricFamily> families_;
};

// This process' memory, processor time, descriptors and start, under the names that Prometheus' own
// clients use.
std::string ProcessMetricsText();

}  // namespace odmoe
