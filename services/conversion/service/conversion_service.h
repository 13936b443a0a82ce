// The gRPC face of a job queue.
#pragma once

#include <memory>

#include "services/core/jobs/job_queue.h"

namespace grpc {
class Service;
}

namespace odmoe {

// Serves odmoe.conversion.v1.ConversionService from `queue`, which outlives it. Destroy it after
// the server that serves it has shut down.
std::unique_ptr<grpc::Service> MakeConversionService(JobQueue& queue);

// "odmoe.conversion.v1.ConversionService", for health checks.
const char* ConversionServiceName();

}  // namespace odmoe
