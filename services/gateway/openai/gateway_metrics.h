// What /metrics tells.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// Counters, gauges and histograms in Prometheus' text format, named as the common inference servers
// name theirs, with the prefix odmoe_. Thread-safe.
class GatewayMetrics {
 public:
  GatewayMetrics();
  ~GatewayMetrics();
  GatewayMetrics(const GatewayMetrics&) = delete;
  GatewayMetrics& operator=(const GatewayMetrics&) = delete;

  // Any request, by the route that took it ("other" for none) and its answer's status.
  void CountHttp(absl::string_view route, int status);

  void SetRequests(int running, int waiting);

  void ObserveTimeToFirstToken(absl::Duration duration);
  void ObserveInterTokenLatency(absl::Duration duration);
  // A generation that ended well, with what it cost.
  void CountGeneration(const GenerateSummary& summary);
  // A completion request's end: "stop", "length", "cancelled" or "error".
  void CountRequest(absl::string_view finished_reason, absl::Duration end_to_end);

  // The text format, version 0.0.4.
  std::string Serialize() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace odmoe
