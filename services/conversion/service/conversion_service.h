// The gRPC face of a job queue and of the files it works on.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/conversion/transfer/spool.h"
#include "services/core/io/path_roots.h"
#include "services/core/jobs/job_queue.h"

namespace grpc {
class Service;
}

namespace odmoe {

struct ConversionServiceOptions {
  PathRoots roots;         // below which files may be fetched
  Spool* spool = nullptr;  // where uploads go; null: none are taken
};

// Serves odmoe.conversion.v1.ConversionService from `queue`, which outlives it, as the spool does.
// Destroy it after the server that serves it has shut down.
std::unique_ptr<grpc::Service> MakeConversionService(JobQueue& queue,
                                                     ConversionServiceOptions options);

// "odmoe.conversion.v1.ConversionService", for health checks.
const char* ConversionServiceName();

}  // namespace odmoe
