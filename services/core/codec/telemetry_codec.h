// A store's telemetry as a message of odmoe.expert_storage.v1, for the service and its clients.
#pragma once

#include "odmoe/expert_storage/v1/expert_storage_service.pb.h"
#include "services/core/experts/store_telemetry.h"

namespace odmoe {

expert_storage::v1::StoreTelemetry ToProto(const StoreTelemetry& telemetry);

// The service is not trusted: negative counts become 0, and what a histogram has beyond its buckets
// is dropped.
StoreTelemetry FromProto(const expert_storage::v1::StoreTelemetry& telemetry);

}  // namespace odmoe
