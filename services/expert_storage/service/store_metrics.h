// A store's counters and telemetry as Prometheus collects them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "services/core/experts/expert_store.h"
#include "services/core/experts/store_telemetry.h"
#include "services/expert_storage/service/store_host.h"

namespace odmoe {

// What one model's metrics are made of.
struct ModelMetrics {
  std::string model;
  StoreStats stats;
  StoreTelemetry telemetry;
};

// Text in Prometheus' exposition format: odmoe_expert_storage_*, in base units (seconds, bytes),
// labelled with the model, with cause, layer or tenant where they differ by it. Clients, whose
// names are their own, are only counted.
std::string StoreMetricsText(const std::vector<ModelMetrics>& models);

// Of every model open now, and of this process: its memory and its open descriptors.
std::string CollectStoreMetrics(const StoreHost& models);

}  // namespace odmoe
