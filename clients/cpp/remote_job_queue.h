// The jobs of a conversion service.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// The queue behind `endpoint`, "HOST:PORT" or "unix:/path"; connects with its first call. Calls
// fail with UNAVAILABLE while the service cannot be reached. Watch takes up where it left off when
// its connection breaks, and gives up with UNAVAILABLE after half a minute without the service; a
// request id makes Submit safe to repeat. INVALID_ARGUMENT: no such form of endpoint.
absl::StatusOr<std::unique_ptr<JobQueue>> ConnectJobQueue(const std::string& endpoint);

}  // namespace odmoe
