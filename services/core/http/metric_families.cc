#include "services/core/http/metric_families.h"

#include <prometheus/text_serializer.h>
#include <sys/resource.h>

#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/utf8.h"

namespace odmoe {
namespace {

using prometheus::ClientMetric;

// This file is loaded as the process starts.
const absl::Time kProcessStart = absl::Now();

// Prometheus refuses all of a text that is not UTF-8, and models are named after files.
ClientMetric Labelled(MetricFamilies::Labels labels) {
  ClientMetric metric;
  metric.label = std::move(labels);
  for (ClientMetric::Label& label : metric.label) label.value = ReplaceInvalidUtf8(label.value);
  return metric;
}

uint64_t OpenDescriptors() {
  std::error_code error;
  uint64_t descriptors = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error)) {
    ++descriptors;
  }
  return descriptors;
}

double ProcessorSeconds() {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0.0;
  return absl::ToDoubleSeconds(absl::DurationFromTimeval(usage.ru_utime) +
                               absl::DurationFromTimeval(usage.ru_stime));
}

}  // namespace

void MetricFamilies::Begin(Type type, const std::string& name, const std::string& help) {
  families_.push_back({absl::StrCat(prefix_, name), help, type, {}});
}

void MetricFamilies::Add(Labels labels, double value) {
  ClientMetric metric = Labelled(std::move(labels));
  if (families_.back().type == Type::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  families_.back().metric.push_back(std::move(metric));
}

void MetricFamilies::Add(Labels labels, const LogHistogram& histogram, double unit, size_t every) {
  ClientMetric metric = Labelled(std::move(labels));
  uint64_t below = 0;
  for (size_t i = 0; i + 1 < LogHistogram::kBuckets; ++i) {
    below += histogram.counts[i];
    if (i % every != 0) continue;
    metric.histogram.bucket.push_back(
        {below, unit * static_cast<double>(LogHistogram::UpperBound(i))});
  }
  const uint64_t count = histogram.count();
  metric.histogram.bucket.push_back({count, std::numeric_limits<double>::infinity()});
  metric.histogram.sample_count = count;
  metric.histogram.sample_sum = unit * static_cast<double>(histogram.sum);
  families_.back().metric.push_back(std::move(metric));
}

void MetricFamilies::AddOne(Type type, const std::string& name, const std::string& help,
                            double value) {
  Begin(type, name, help);
  Add({}, value);
}

std::string MetricFamilies::Text() const {
  return prometheus::TextSerializer().Serialize(families_);
}

std::string ProcessMetricsText() {
  using Type = MetricFamilies::Type;
  MetricFamilies families("process_");
  families.AddOne(Type::Gauge, "resident_memory_bytes", "Resident memory, mapped files included",
                  static_cast<double>(RssBytes()));
  families.AddOne(Type::Counter, "cpu_seconds_total", "Processor time, user and system",
                  ProcessorSeconds());
  families.AddOne(Type::Gauge, "open_fds", "Open file descriptors",
                  static_cast<double>(OpenDescriptors()));
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    families.AddOne(Type::Gauge, "max_fds", "Most there may be",
                    static_cast<double>(limit.rlim_cur));
  }
  families.AddOne(Type::Gauge, "start_time_seconds", "When it started, since 1970",
                  absl::ToDoubleSeconds(kProcessStart - absl::UnixEpoch()));
  return families.Text();
}

}  // namespace odmoe
